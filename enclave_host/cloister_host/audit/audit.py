"""Write and read the audit log.

Entries stand in the store under a MAC until the sequencer gives their leaves a place in the Merkle log.
"""

from __future__ import annotations

import hmac
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import text

from cloister_host.audit.entry import SALT_BYTES, Entry, Outcome, leaf_hash
from cloister_host.identity.caller import Caller
from cloister_host.store import TamperedError, Tx
from cloister_host.store.canonical import canonical
from cloister_host.store.rows import RowKeys, row_binding, row_mac

__all__ = ["Audit", "Event", "Outcome"]

_INSERT: Final = text(
    "INSERT INTO audit (id, tenant, entry, salt, leaf, mac) VALUES (:id, :tenant, :entry, :salt, :leaf, :mac)"
)
_SELECT: Final = text(
    "SELECT id, entry, salt, leaf, mac FROM audit WHERE tenant = :tenant AND id > :after"
    " ORDER BY id LIMIT :limit"
)
_VERSION: Final = 1  # entries never change


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What `Audit.record_many` records of one of several acts."""

    resource: str
    outcome: Outcome = "done"
    detail: Mapping[str, str | int] = field(default_factory=dict)


class Audit:
    """The log's writing and reading end.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = itertools.count()

    def record(
        self,
        tx: Tx,
        caller: Caller,
        *,
        act: str,
        resource: str,
        outcome: Outcome = "done",
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """Record one act in the transaction of its effect; if that fails, so does the act."""
        self.record_many(
            tx, caller, act=act, events=[Event(resource=resource, outcome=outcome, detail=detail or {})]
        )

    def refuse(
        self,
        tx: Tx,
        caller: Caller,
        *,
        act: str,
        resource: str,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """Record a refusal, which stays recorded when the transaction it ended is rolled back."""
        refusal = [Event(resource=resource, outcome="refused", detail=detail or {})]
        rows = self._rows(tx.keys, caller, act, refusal)
        tx.execute_many(_INSERT, rows)
        tx.on_rollback(lambda aftermath: aftermath.execute_many(_INSERT, rows))

    def record_many(self, tx: Tx, caller: Caller, *, act: str, events: Sequence[Event]) -> None:
        """Record several acts of one kind, an entry each."""
        tx.execute_many(_INSERT, self._rows(tx.keys, caller, act, events))

    def read(self, tx: Tx, tenant: str, *, after: str, limit: int) -> list[Entry]:
        """Read a tenant's entries in the order they were written.

        Raises:
            TamperedError: An entry is not one the host wrote.
        """
        found = tx.execute(_SELECT, {"tenant": tenant, "after": after, "limit": limit})
        return [_checked(tx.keys, tenant, row) for row in found]

    def _rows(self, keys: RowKeys, caller: Caller, act: str, events: Sequence[Event]) -> list[dict[str, Any]]:
        at = int(self._clock() * 1000)
        salts = os.urandom(SALT_BYTES * len(events))
        rows = []
        for index, event in enumerate(events):
            entry_id = self._entry_id(at)
            entry = canonical(
                Entry(
                    id=entry_id,
                    at=at,
                    tenant=caller.tenant,
                    principal=caller.principal,
                    kind=caller.kind,
                    on_behalf_of=caller.on_behalf_of,
                    correlation_id=caller.correlation_id,
                    act=act,
                    resource=event.resource,
                    outcome=event.outcome,
                    detail=dict(event.detail),
                )
            )
            salt = salts[index * SALT_BYTES : (index + 1) * SALT_BYTES]
            rows.append(
                {
                    "id": entry_id,
                    "tenant": caller.tenant,
                    "entry": entry.decode(),
                    "salt": salt,
                    "leaf": leaf_hash(salt, entry),
                    "mac": _mac(keys, caller.tenant, entry_id, entry),
                }
            )
        return rows

    def _entry_id(self, at: int) -> str:
        # Sorts by time, then by the order of writing; the tail keeps replicas apart.
        return f"{at:012x}{next(self._count) & 0xFFFFFFFF:08x}{os.urandom(6).hex()}"


def _mac(keys: RowKeys, tenant: str, entry_id: str, entry: bytes) -> bytes:
    return row_mac(keys, row_binding(keys.deployment, tenant, "audit", entry_id, _VERSION), entry)


def _checked(keys: RowKeys, tenant: str, row: Any) -> Entry:
    entry_id, stored, salt, leaf, mac = row
    if not (isinstance(stored, str) and all(isinstance(column, bytes) for column in (salt, leaf, mac))):
        raise TamperedError("audit")
    entry = stored.encode("utf-8", "surrogatepass")
    expected = _mac(keys, tenant, entry_id, entry)
    if not hmac.compare_digest(mac, expected) or leaf != leaf_hash(salt, entry):
        raise TamperedError("audit")
    return msgspec.json.decode(entry, type=Entry)
