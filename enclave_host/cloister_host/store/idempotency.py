"""One effect per idempotency key, however often it is asked for (PROTOCOL 6).

Requests are compared by a hash keyed for the tenant: a bare digest in the database would let its
owner guess a PIN that was sent to be tokenized.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from sqlalchemy import text

from cloister.errors import ConfigurationError, UnavailableError
from cloister.jose import b64url_encode
from cloister_host.store.canonical import canonical, utf8
from cloister_host.store.rows import Table
from cloister_host.store.tx import Tx

if TYPE_CHECKING:
    from cloister_host.identity.caller import Caller

__all__ = ["Done", "Fresh", "Idempotency"]

LEASE_SECONDS: Final = 120
KEPT_SECONDS: Final = 24 * 3600
PRUNE_SECONDS: Final = 0.25
PRUNED_AT_ONCE: Final = 128


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of an `idempotency` row; the result is its blob."""

    request: str
    status: Literal["in_progress", "done"]
    holder: str
    lease_expires: int
    expires: int


_TABLE: Final = Table("idempotency", Remembered, "idempotency key")
_EXPIRE: Final = text(
    "INSERT INTO idempotency_expiry (expires, tenant, id) VALUES (:expires, :tenant, :id)"
    " ON CONFLICT (expires, tenant, id) DO NOTHING"
)
_EXPIRED: Final = text(
    "SELECT expires, tenant, id FROM idempotency_expiry WHERE expires < :now ORDER BY expires LIMIT :limit"
)
_UNLISTED: Final = text(
    "SELECT id FROM idempotency WHERE tenant = :tenant AND id > :after"
    " AND id NOT IN (SELECT id FROM idempotency_expiry WHERE tenant = :tenant) ORDER BY id LIMIT :limit"
)
_FORGET: Final = text(
    "DELETE FROM idempotency_expiry WHERE expires = :expires AND tenant = :tenant AND id = :id"
)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody has done this; the claim is the caller's."""


@dataclass(frozen=True, slots=True)
class Done:
    """This was done before, with this result."""

    result: bytes


class Idempotency:
    """Claims and results, scoped to (tenant, principal, operation, key).

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pruned = 0.0

    def claim(self, tx: Tx, caller: Caller, op: str, key: str, request_digest: bytes) -> Fresh | Done:
        """Claim an effect before it happens.

        A claim whose holder died lapses after `LEASE_SECONDS`.

        Raises:
            UnavailableError: Another request is at work on it.
            ConfigurationError: The key was used for another request, or is not valid Unicode.
        """
        self.prune(tx)
        now = int(self._clock())
        row_id, request = _keyed(tx, caller, op, key), _keyed(tx, caller, request_digest.hex())
        row = tx.get(_TABLE, caller.tenant, row_id)
        if row is not None:
            if not hmac.compare_digest(row.record.request, request):
                raise ConfigurationError(
                    "this idempotency key was used for another request", hint="use a new key for a new effect"
                )
            if row.record.status == "done":
                return Done(tx.reveal(_TABLE, row).reveal())
            if now < row.record.lease_expires:
                raise UnavailableError("this effect is being worked on", hint="retry with the same key")
        tx.put(
            _TABLE,
            caller.tenant,
            row_id,
            Remembered(
                request=request,
                status="in_progress",
                holder=caller.correlation_id,
                lease_expires=now + LEASE_SECONDS,
                expires=now + KEPT_SECONDS,
            ),
        )
        tx.execute(_EXPIRE, {"expires": now + KEPT_SECONDS, "tenant": caller.tenant, "id": row_id})
        return Fresh()

    def finish(self, tx: Tx, caller: Caller, op: str, key: str, result: bytes) -> None:
        """Remember the result, in the transaction of the effect.

        Raises:
            UnavailableError: The claim lapsed and somebody else has it now; undo the effect.
        """
        row_id = _keyed(tx, caller, op, key)
        row = tx.get(_TABLE, caller.tenant, row_id)
        if row is None or not _held(row.record, caller):
            raise UnavailableError("the claim on this effect was lost", hint="retry with the same key")
        done = msgspec.structs.replace(row.record, status="done")
        tx.put(_TABLE, caller.tenant, row_id, done, secret=result)

    def release(self, tx: Tx, caller: Caller, op: str, key: str) -> None:
        """Give a claim back: the effect did not happen."""
        row_id = _keyed(tx, caller, op, key)
        row = tx.get(_TABLE, caller.tenant, row_id)
        if row is not None and _held(row.record, caller):
            tx.delete(_TABLE, caller.tenant, row_id)

    def prune(self, tx: Tx) -> None:
        """Forget some results that are older than `KEPT_SECONDS`, unless that was done just now."""
        at = self._clock()
        if abs(at - self._pruned) < PRUNE_SECONDS:
            return
        self._pruned, now = at, int(at)
        expired = tx.execute(_EXPIRED, {"now": now, "limit": PRUNED_AT_ONCE}).all()
        for expires, tenant, row_id in map(tuple, expired):
            row = tx.get(_TABLE, tenant, row_id)
            # A key that was claimed again since has a later expiry of its own.
            if row is not None and row.record.expires < now:
                tx.delete(_TABLE, tenant, row_id)
            tx.execute(_FORGET, {"expires": expires, "tenant": tenant, "id": row_id})

    def mend(self, tx: Tx, tenant: str, after: str) -> str:
        """Let every result of a tenant be forgotten in its time, whatever the index has; see `Hints`."""
        found = tx.execute(_UNLISTED, {"tenant": tenant, "after": after, "limit": PRUNED_AT_ONCE}).all()
        for (row_id,) in map(tuple, found):
            row = tx.get(_TABLE, tenant, str(row_id))
            if row is not None:
                tx.execute(_EXPIRE, {"expires": row.record.expires, "tenant": tenant, "id": row.id})
        return str(found[-1][0]) if len(found) == PRUNED_AT_ONCE else ""


def _held(record: Remembered, caller: Caller) -> bool:
    return record.status == "in_progress" and record.holder == caller.correlation_id


def _keyed(tx: Tx, caller: Caller, *parts: str) -> str:
    for part in parts:
        utf8(part)
    # Canonical JSON keeps the parts apart, whatever text the client chose as a key.
    key = tx.derived_key(caller.tenant, "idempotency")
    return b64url_encode(hmac.digest(key.reveal(), canonical((caller.principal, *parts)), "sha256"))
