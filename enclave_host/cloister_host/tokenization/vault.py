"""The vault: random tokens, and the values behind them encrypted at rest.

A token is drawn at random, so it says nothing about its value whatever the value's domain is; that is
why four-digit PINs go here and never through format-preserving encryption.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, text

from cloister.errors import LimitError
from cloister_host.store import TamperedError, Tx
from cloister_host.store.blobs import BlobKey
from cloister_host.store.canonical import utf8
from cloister_host.tokenization.alphabet import TokenShape

__all__ = ["Vault", "VaultPlan"]

MAX_DRAWS: Final = 16
AT_ONCE: Final = 500
MAX_VALUE_BYTES: Final = 16 * 1024
PADDED_BYTES: Final = 32
_TABLE: Final = "vault"
_VERSION: Final = 1  # a token's value never changes

_INSERT: Final = text(
    "INSERT INTO vault (tenant, policy, token, value, lookup)"
    " VALUES (:tenant, :policy, :token, :value, :lookup)"
)
_BY_TOKEN: Final = text(
    "SELECT token, value FROM vault WHERE tenant = :tenant AND policy = :policy AND token IN :wanted"
).bindparams(bindparam("wanted", expanding=True))
_BY_LOOKUP: Final = text(
    "SELECT lookup, token, value FROM vault WHERE tenant = :tenant AND policy = :policy AND lookup IN :wanted"
).bindparams(bindparam("wanted", expanding=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPlan:
    """What a policy of the plan `vault` compiles to."""

    tenant: str
    policy: str
    shape: TokenShape
    deterministic: bool


class Vault:
    """Draws tokens and finds the values behind them. Rights are checked by `TokenizationService`."""

    def tokenize(self, tx: Tx, plan: VaultPlan, values: Sequence[str]) -> list[str]:
        """Replace values by tokens, unique within tenant and policy.

        The transaction is the only writer (SQLite), or is undone on a conflict (PostgreSQL); together
        with the primary key no two values can get one token.

        Raises:
            LimitError: A value is too long, or the policy has hardly any tokens left.
            ConfigurationError: A value is not valid Unicode.
        """
        encoded = [utf8(value) for value in values]
        if any(len(value) > MAX_VALUE_BYTES for value in encoded):
            raise LimitError(f"a value to tokenize has at most {MAX_VALUE_BYTES} bytes")
        if not plan.deterministic:
            return self._store(tx, plan, values, encoded, [None] * len(values))
        key = tx.derived_key(plan.tenant, f"vault-lookup.{plan.policy}").reveal()
        lookups = [hmac.digest(key, value, "sha256") for value in encoded]
        known = self._known(tx, plan, dict(zip(lookups, encoded, strict=True)))
        new = {lookup: i for i, lookup in enumerate(lookups) if lookup not in known}
        stored = self._store(
            tx, plan, [values[i] for i in new.values()], [encoded[i] for i in new.values()], list(new)
        )
        known.update(zip(new, stored, strict=True))
        return [known[lookup] for lookup in lookups]

    def detokenize(self, tx: Tx, plan: VaultPlan, tokens: Sequence[str]) -> list[str | None]:
        """Find the values behind tokens; None where there is none.

        Raises:
            TamperedError: A stored value was changed, or belongs to another token.
        """
        key = tx.blob_key(plan.tenant, _TABLE)
        wanted = {token for token in tokens if plan.shape.fits(token)}
        found = {
            token: _unpad(key.open(_row_id(plan, token), _VERSION, value)).decode()
            for token, value in self._select(tx, plan, _BY_TOKEN, list(wanted))
        }
        return [found.get(token) for token in tokens]

    def _known(self, tx: Tx, plan: VaultPlan, by_lookup: dict[bytes, bytes]) -> dict[bytes, str]:
        """Tokens that values have already. The stored value is compared: the database could swap hashes."""
        key = tx.blob_key(plan.tenant, _TABLE)
        known = {}
        for lookup, token, blob in self._select(tx, plan, _BY_LOOKUP, list(by_lookup)):
            stored = _unpad(key.open(_row_id(plan, token), _VERSION, blob))
            if not hmac.compare_digest(stored, by_lookup.get(lookup, b"")):
                raise TamperedError(_TABLE)
            known[lookup] = token
        return known

    def _store(
        self,
        tx: Tx,
        plan: VaultPlan,
        values: Sequence[str],
        encoded: Sequence[bytes],
        lookups: Sequence[bytes | None],
    ) -> list[str]:
        tokens = self._free_tokens(tx, plan, values)
        key = tx.blob_key(plan.tenant, _TABLE)
        tx.execute_many(
            _INSERT,
            [
                {
                    "tenant": plan.tenant,
                    "policy": plan.policy,
                    "token": token,
                    "value": _sealed(key, plan, token, value),
                    "lookup": lookup,
                }
                for token, value, lookup in zip(tokens, encoded, lookups, strict=True)
            ],
        )
        return tokens

    def _free_tokens(self, tx: Tx, plan: VaultPlan, values: Sequence[str]) -> list[str]:
        """One unused token a value, none equal to any value of the batch."""
        avoided, tokens = set(values), dict[str, None]()
        for _ in range(MAX_DRAWS):
            drawn = plan.shape.draw(len(values) - len(tokens)) - avoided - tokens.keys()
            taken = {token for token, _ in self._select(tx, plan, _BY_TOKEN, list(drawn))}
            tokens.update(dict.fromkeys(drawn - taken))
            if len(tokens) == len(values):
                return list(tokens)
        raise LimitError("the policy has hardly any tokens left", hint="make a policy with longer tokens")

    def _select(self, tx: Tx, plan: VaultPlan, statement: Any, wanted: Sequence[Any]) -> Iterator[Any]:
        for start in range(0, len(wanted), AT_ONCE):
            chunk = wanted[start : start + AT_ONCE]
            names = {"tenant": plan.tenant, "policy": plan.policy}
            yield from tx.execute(statement, {**names, "wanted": chunk})


def _row_id(plan: VaultPlan, token: str) -> str:
    # Policy names hold no slash.
    return f"{plan.policy}/{token}"


def _sealed(key: BlobKey, plan: VaultPlan, token: str, value: bytes) -> bytes:
    return key.seal(_row_id(plan, token), _VERSION, _pad(value))


def _pad(value: bytes) -> bytes:
    """Hide the length of short values, as of PINs (padding of ISO/IEC 9797-1, method 2)."""
    return value + b"\x80" + bytes(-(len(value) + 1) % PADDED_BYTES)


def _unpad(padded: bytes) -> bytes:
    return padded[: padded.rindex(b"\x80")]
