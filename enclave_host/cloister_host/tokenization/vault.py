"""The vault: random tokens, and the values behind them encrypted at rest.

A token is drawn at random, so it says nothing about its value whatever the value's domain is; that is
why four-digit PINs go here and never through format-preserving encryption.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import bindparam, text

from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister_host.store import TamperedError, Tx
from cloister_host.store.blobs import BlobKey
from cloister_host.store.canonical import utf8
from cloister_host.tokenization.plans import VaultPlan
from cloister_host.tokenization.registry import Policy

__all__ = ["Vault"]

MAX_DRAWS: Final = 16
AT_ONCE: Final = 2000
MAX_VALUE_BYTES: Final = 16 * 1024
PADDED_BYTES: Final = 32
_EXPIRY_BYTES: Final = 8
_TABLE: Final = "vault"
_PREFIX_BYTES: Final = 4
_VERSION: Final = 1  # a token's value never changes

_INSERT: Final = text(
    "INSERT INTO vault (tenant, policy, token, value, lookup)"
    " VALUES (:tenant, :policy, :token, :value, :lookup)"
)
_DELETE: Final = text("DELETE FROM vault WHERE tenant = :tenant AND policy = :policy AND token = :token")
_BY_TOKEN: Final = text(
    "SELECT token, value FROM vault WHERE tenant = :tenant AND policy = :policy AND token IN :wanted"
).bindparams(bindparam("wanted", expanding=True))
_BY_LOOKUP: Final = text(
    "SELECT lookup, token, value FROM vault WHERE tenant = :tenant AND policy = :policy AND lookup IN :wanted"
).bindparams(bindparam("wanted", expanding=True))


class Vault:
    """Draws tokens and finds the values behind them. Rights are checked by `TokenizationService`.

    Args:
        clock: Epoch seconds, for tokens that expire.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def tokenize(self, tx: Tx, policy: Policy, values: Sequence[str]) -> list[str]:
        """Replace values without fault by tokens, unique within tenant and policy.

        The transaction is the only writer (SQLite), or is undone on a conflict (PostgreSQL); together
        with the primary key no two values can get one token.

        Raises:
            LimitError: A value is too long, or the policy has hardly any tokens left.
            ConfigurationError: A value is not valid Unicode.
        """
        encoded = [utf8(value) for value in values]
        if any(len(value) > MAX_VALUE_BYTES for value in encoded):
            raise LimitError(f"a value to tokenize has at most {MAX_VALUE_BYTES} bytes")
        if not _plan(policy).deterministic:
            return self._store(tx, policy, values, encoded, [None] * len(values))
        key = tx.derived_key(policy.tenant, f"vault-lookup.{policy.name}").reveal()
        lookups = [hmac.digest(key, value, "sha256") for value in encoded]
        known = self._known(tx, policy, dict(zip(lookups, encoded, strict=True)))
        new = {lookup: i for i, lookup in enumerate(lookups) if lookup not in known}
        stored = self._store(
            tx, policy, [values[i] for i in new.values()], [encoded[i] for i in new.values()], list(new)
        )
        known.update(zip(new, stored, strict=True))
        return [known[lookup] for lookup in lookups]

    def detokenize(
        self, tx: Tx, policy: Policy, tokens: Sequence[str], *, rescue: bool = False
    ) -> list[str | None]:
        """Find the values behind tokens; None where there is none, or none any more.

        Args:
            tx: The transaction.
            policy: Whose tokens they are.
            tokens: At most a batch.
            rescue: The values are only moved to another policy.

        Raises:
            TamperedError: A stored value was changed, or belongs to another token.
        """
        cipher = _Cipher(tx, policy, rescue=rescue)
        found: dict[str, str] = {}
        for token, blob in self._select(tx, policy, _BY_TOKEN, list({*filter(_encodable, tokens)})):
            try:
                value = self._open(cipher, policy, token, blob)
            except OpenError:
                continue
            if value is not None:
                found[token] = value.decode()
        return [found.get(token) for token in tokens]

    def revoke(self, tx: Tx, policy: Policy, tokens: Sequence[str]) -> int:
        """Delete tokens and the values behind them; tells how many there were."""
        wanted = list({*filter(_encodable, tokens)})
        present = [token for token, _ in self._select(tx, policy, _BY_TOKEN, wanted)]
        self._delete(tx, policy, present)
        return len(present)

    def _known(self, tx: Tx, policy: Policy, by_lookup: dict[bytes, bytes]) -> dict[bytes, str]:
        """Tokens that values have already. The stored value is compared: the database could swap hashes."""
        cipher = _Cipher(tx, policy)
        known, expired = {}, []
        for lookup, token, blob in self._select(tx, policy, _BY_LOOKUP, list(by_lookup)):
            try:
                stored = self._open(cipher, policy, token, blob)
            except OpenError:
                raise ConfigurationError(
                    "a value has a token already, under a key version that opens nothing any more",
                    hint="revoke that token, or use another policy",
                ) from None
            if stored is None:
                expired.append(token)
                continue
            if not hmac.compare_digest(stored, by_lookup.get(lookup, b"")):
                raise TamperedError(_TABLE)
            known[lookup] = token
        self._delete(tx, policy, expired)
        return known

    def _store(
        self,
        tx: Tx,
        policy: Policy,
        values: Sequence[str],
        encoded: Sequence[bytes],
        lookups: Sequence[bytes | None],
    ) -> list[str]:
        tokens = self._free_tokens(tx, policy, values)
        seal = _Cipher(tx, policy).sealer()
        ttl = _plan(policy).ttl_seconds
        expiry = (int(self._clock()) + ttl if ttl else 0).to_bytes(_EXPIRY_BYTES, "big")
        tx.execute_many(
            _INSERT,
            [
                {
                    "tenant": policy.tenant,
                    "policy": policy.name,
                    "token": token,
                    "value": seal(_row_id(policy, token), _pad(expiry + value)),
                    "lookup": lookup,
                }
                for token, value, lookup in zip(tokens, encoded, lookups, strict=True)
            ],
        )
        return tokens

    def _free_tokens(self, tx: Tx, policy: Policy, values: Sequence[str]) -> list[str]:
        """One unused token a value, none equal to any value of the batch."""
        avoided, plan = set(values), _plan(policy)
        tokens: dict[int, str] = {}
        used: set[str] = set()
        missing: Sequence[int] = range(len(values))
        for _ in range(MAX_DRAWS):
            drawn: dict[str, int] = {}
            for place in missing:
                token = plan.draw(values[place])
                if token not in avoided and token not in used:
                    drawn[token] = place
            for token, _value in self._select(tx, policy, _BY_TOKEN, list(drawn)):
                del drawn[token]
            used.update(drawn)
            tokens.update({place: token for token, place in drawn.items()})
            missing = [place for place in missing if place not in tokens]
            if not missing:
                return [tokens[place] for place in range(len(values))]
        raise LimitError("the policy has hardly any tokens left", hint="make a policy with longer tokens")

    def _select(self, tx: Tx, policy: Policy, statement: Any, wanted: Sequence[Any]) -> Iterator[Any]:
        for start in range(0, len(wanted), AT_ONCE):
            chunk = wanted[start : start + AT_ONCE]
            names = {"tenant": policy.tenant, "policy": policy.name}
            yield from tx.execute(statement, {**names, "wanted": chunk}).all()

    def _delete(self, tx: Tx, policy: Policy, tokens: Sequence[str]) -> None:
        names = {"tenant": policy.tenant, "policy": policy.name}
        tx.execute_many(_DELETE, [{**names, "token": token} for token in tokens])

    def _open(self, cipher: _Cipher, policy: Policy, token: str, blob: bytes) -> bytes | None:
        """The value behind a token; None once it expired."""
        opened = _unpad(cipher.open(_row_id(policy, token), blob))
        expiry = int.from_bytes(opened[:_EXPIRY_BYTES], "big")
        return None if expiry and self._clock() >= expiry else opened[_EXPIRY_BYTES:]


class _Cipher:
    """Seals and opens values of one policy, under the tenant's KEK or under the policy's key.

    Under a key, a value begins with the number of the version that sealed it: destroying the version
    destroys the values.
    """

    def __init__(self, tx: Tx, policy: Policy, *, rescue: bool = False) -> None:
        self._tx = tx
        self._policy = policy
        self._rescue = rescue
        self._own = None if policy.has_key else tx.blob_key(policy.tenant, _TABLE)
        self._versions: dict[int, BlobKey | None] = {}

    def sealer(self) -> Callable[[str, bytes], bytes]:
        """What seals values now; raises `ConfigurationError` if the key protects nothing."""
        if self._own is not None:
            own = self._own
            return lambda row_id, value: own.seal(row_id, _VERSION, value)
        current = self._policy.protecting(self._tx)
        key, prefix = self._blob_key(current.octets), current.version.to_bytes(_PREFIX_BYTES, "big")
        return lambda row_id, value: prefix + key.seal(row_id, _VERSION, value)

    def open(self, row_id: str, blob: bytes) -> bytes:
        """A value as it was sealed; `OpenError` if its key version opens nothing any more."""
        if self._own is not None:
            return self._own.open(row_id, _VERSION, blob)
        version = int.from_bytes(blob[:_PREFIX_BYTES], "big")
        if version not in self._versions:
            try:
                found = self._policy.processing(self._tx, version, rescue=self._rescue)
                self._versions[version] = self._blob_key(found.octets)
            except OpenError:
                self._versions[version] = None
        key = self._versions[version]
        if key is None:
            raise OpenError
        return key.open(row_id, _VERSION, blob[_PREFIX_BYTES:])

    def _blob_key(self, octets: bytes) -> BlobKey:
        return BlobKey(self._tx.keys.deployment, self._policy.tenant, _TABLE, AESGCM(octets))


def _plan(policy: Policy) -> VaultPlan:
    plan = policy.compiled.plan
    assert isinstance(plan, VaultPlan), "only vault policies come here"
    return plan


def _encodable(token: str) -> bool:
    """Whether a database can be asked for it; JSON carries half surrogate pairs and NUL."""
    if "\0" in token:
        return False
    return token.isascii() or not any("\ud800" <= char <= "\udfff" for char in token)


def _row_id(policy: Policy, token: str) -> str:
    # Policy names hold no slash.
    return f"{policy.name}/{token}"


def _pad(value: bytes) -> bytes:
    """Hide the length of short values, as of PINs (padding of ISO/IEC 9797-1, method 2)."""
    return value + b"\x80" + bytes(-(len(value) + 1) % PADDED_BYTES)


def _unpad(padded: bytes) -> bytes:
    return padded[: padded.rindex(b"\x80")]
