"""What is done to the columns of one batch. Each step is a value that travels in the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cloister import columns
from cloister.columns import Column, context_text
from cloister.errors import ConfigurationError
from cloister.mask import View

if TYPE_CHECKING:
    from cloister.client import Client

__all__ = ["Invoke", "Mask", "Retokenize", "Rewrap", "Seal", "Show", "Step", "Tokenize"]

Columns = Mapping[str, Sequence[Any]]

MAX_CONTEXT_CHARS: Final = 1024  # the host refuses a batch with a longer one as a whole


class Step(Protocol):
    """One operation on a batch of rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""

    @property
    def asks(self) -> bool:
        """Whether it needs the host."""

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:
        """Work on the columns; they have one length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfColumn:
    """A step that reads one column, and perhaps a tweak beside it."""

    column: str
    asks = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfTokens(_OfColumn):
    policy: str
    tweak: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.tweak is None else (self.column, self.tweak)

    def _tweaks(self, given: Columns) -> Sequence[str | None] | None:
        return None if self.tweak is None else given[self.tweak]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize(_OfTokens):
    """Replace values by tokens."""

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:
        """See `cloister.columns.tokenize`."""
        assert client is not None
        return columns.tokenize(
            client,
            given[self.column],
            policy=self.policy,
            tweaks=self._tweaks(given),
            idempotency_key=idempotency_key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retokenize(_OfTokens):
    """Move tokens to the current key version, or to another policy."""

    to: str | None = None
    key_version: int | None = None

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:
        """See `cloister.columns.retokenize`."""
        assert client is not None
        return columns.retokenize(
            client,
            given[self.column],
            policy=self.policy,
            to=self.to,
            key_version=self.key_version,
            tweaks=self._tweaks(given),
            idempotency_key=idempotency_key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Show(_OfTokens):
    """What the executors' principal may see of the values behind tokens."""

    key_version: int | None = None
    purpose: str | None = None

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:  # noqa: ARG002 (it has no effect)
        """See `cloister.columns.show`."""
        assert client is not None
        return columns.show(
            client,
            given[self.column],
            policy=self.policy,
            key_version=self.key_version,
            tweaks=self._tweaks(given),
            purpose=self.purpose,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound(_OfColumn):
    key: str
    context: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *(name for name in self.context if name != self.column))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(_Bound):
    """Seal values, bound to other columns of their row."""

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:  # noqa: ARG002 (it has no effect)
        """See `cloister.columns.seal`."""
        assert client is not None
        values, bound, faults = _bound(given, self.column, self.context)
        contexts = bound if self.context else None
        return _with(columns.seal(client, values, key=self.key, contexts=contexts), faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrap(_Bound):
    """Move sealed values to the key's current version."""

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:  # noqa: ARG002 (it has no effect)
        """See `cloister.columns.rewrap`."""
        assert client is not None
        values, bound, faults = _bound(given, self.column, self.context)
        contexts = bound if self.context else None
        return _with(columns.rewrap(client, values, key=self.key, contexts=contexts), faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoke:
    """Call a confidential batch function. Inputs and context are pairs: the function's name, the column."""

    function: str
    inputs: tuple[tuple[str, str], ...]
    context: tuple[tuple[str, str], ...] = ()
    asks = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(column for _, column in (*self.inputs, *self.context)))

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:
        """See `cloister.columns.invoke`."""
        assert client is not None
        rows = len(next(iter(given.values())))
        context: dict[str, list[str | None]] = {}
        faults: set[int] = set()
        for name, column in self.context:
            context[name] = [_context_text(value, row, faults) for row, value in enumerate(given[column])]
        answered = columns.invoke(
            client,
            self.function,
            {name: given[column] for name, column in self.inputs},
            rows=rows,
            context=context,
            idempotency_key=idempotency_key,
        )
        return _with(answered, faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Show values in a view, without a host."""

    column: str
    view: View
    asks = False

    @property
    def columns(self) -> tuple[str, ...]:
        """One."""
        return (self.column,)

    def run(self, client: Client | None, given: Columns, *, idempotency_key: str) -> Column:  # noqa: ARG002 (no host)
        """See `cloister.columns.mask`."""
        return columns.mask(given[self.column], self.view)


def _bound(
    given: Columns, column: str, names: Sequence[str]
) -> tuple[list[Any], list[dict[str, str] | None], set[int]]:
    """Values and what each is bound to; a row whose context cannot be used is a fault, and not sent."""
    values = list(given[column])
    faults: set[int] = set()
    contexts: list[dict[str, str] | None] = [None] * len(values)
    for row, value in enumerate(values):
        if value is None:
            continue
        texts = {name: _context_text(given[name][row], row, faults, required=True) for name in names}
        if row in faults:
            values[row] = None
        else:
            contexts[row] = {name: text for name, text in texts.items() if text is not None}
    return values, contexts, faults


def _context_text(value: object, row: int, faults: set[int], *, required: bool = False) -> str | None:
    """A context as text; None where there is none, and a fault where it cannot be used."""
    if value is None:
        if required:
            faults.add(row)
        return None
    try:
        text = context_text(value)
    except ConfigurationError:
        faults.add(row)
        return None
    if len(text) > MAX_CONTEXT_CHARS:
        faults.add(row)
        return None
    return text


def _with(column: Column, faults: set[int]) -> Column:
    column.errors.update(dict.fromkeys(faults, ConfigurationError.code))
    return column
