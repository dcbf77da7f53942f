"""What leaves: checked against the declared output class, sealed or tokenized, outside the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloister.envelope import Padded, Sealed
from cloister.errors import FunctionError
from cloister.function.outputs import OutputClass, Record, SealedUnder, Token
from cloister_host.functions.rows import Rows
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.manager import KeyManager
from cloister_host.store import Tx
from cloister_host.tokenization.service import TokenizationService

__all__ = ["Release", "kids"]


class Release:
    """Lets results out, a column at a time.

    Args:
        keys: Seals.
        tokens: Tokenizes.
    """

    def __init__(self, keys: KeyManager, tokens: TokenizationService) -> None:
        self._keys = keys
        self._tokens = tokens

    def column(self, tx: Tx, function: Caller, rows: Rows, returned: Any) -> list[Any]:
        """Return what may leave for each live row, in order.

        Args:
            tx: The transaction that the result is remembered in.
            function: Whose rights are used.
            rows: What the function was called with; gives the contexts.
            returned: What the worker says the function returned: hostile.

        Raises:
            FunctionError: It is not in the output class.
        """
        column = returned if rows.manifest.batch else [returned]
        if not isinstance(column, list) or len(column) != len(rows.live):
            raise FunctionError(
                "the function did not return one value a row", hint="return a list as long as each input"
            )
        return self._column(tx, function, rows, rows.manifest.output, column)

    def _column(
        self, tx: Tx, function: Caller, rows: Rows, output: OutputClass, column: Sequence[Any]
    ) -> list[Any]:
        checked: list[Any] = [output.check(value) for value in column]
        if not checked:
            return []
        match output:
            case SealedUnder(key=key, context=names):
                contexts = rows.context(names)
                # Bytes have nothing to pad with; everything else shows a power of two instead of its length.
                plain = [value if isinstance(value, bytes) else Padded(value) for value in checked]
                return [str(v) for v in self._keys.seal_values(tx, function, key, plain, contexts)]
            case Token(policy=policy):
                return list(self._tokens.tokenize(tx, function, policy, checked))
            case Record(fields=fields):
                parts = {
                    name: self._column(tx, function, rows, member, [value[name] for value in checked])
                    for name, member in fields.items()
                }
                return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
            case _:
                return checked


def kids(values: Sequence[Any]) -> set[str]:
    """The key versions that values are sealed under; each distinct header is read once."""
    texts = (value for value in values if isinstance(value, str) and value.count(".") == 4)  # noqa: PLR2004 - JWE
    samples = {text.partition(".")[0]: text for text in texts}
    return {Sealed(text).kid for text in samples.values()}
