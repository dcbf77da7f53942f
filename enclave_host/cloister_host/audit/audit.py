"""Write and read audit entries.

Entries stand in the store under a MAC. The act's transaction writes one row and nothing else; the leaf and
its place in the Merkle log are the sequencer's work (see `log`).
"""

from __future__ import annotations

import hmac
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, text

from cloister.receipts.merkle import leaf_hash
from cloister_host.audit.entry import SALT_BYTES, Entry, Outcome
from cloister_host.identity.caller import Caller
from cloister_host.store import TamperedError, Tx
from cloister_host.store.canonical import canonical
from cloister_host.store.rows import RowKeys, row_binding, row_mac

__all__ = ["Audit", "Event", "Outcome", "Recorded", "Written"]

_INSERT: Final = text(
    "INSERT INTO audit (id, tenant, entry, salt, mac) VALUES (:id, :tenant, :entry, :salt, :mac)"
)
_INSERT_STATE: Final = text(
    "INSERT INTO audit (id, tenant, entry, salt, mac, state)"
    " VALUES (:id, :tenant, :entry, :salt, :mac, :state)"
)
_COLUMNS: Final = "SELECT id, tenant, entry, salt, mac, position FROM audit"
_SELECT: Final = text(f"{_COLUMNS} WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :limit")
_SELECT_ONE: Final = text(f"{_COLUMNS} WHERE tenant = :tenant AND id = :id")
_SELECT_STATE: Final = text(
    f"{_COLUMNS} WHERE tenant = :tenant AND state IS NOT NULL ORDER BY state DESC LIMIT 1"
)
_SELECT_PLACED: Final = text(
    f"{_COLUMNS} WHERE tenant = :tenant AND position >= :start AND position < :end"
    " ORDER BY position LIMIT :limit"
)
_SELECT_UNSEQUENCED: Final = text(f"{_COLUMNS} WHERE position IS NULL ORDER BY id LIMIT :limit")
_SELECT_SEQUENCED: Final = text("SELECT id FROM audit WHERE position IS NOT NULL AND id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)
_PLACE: Final = text("UPDATE audit SET position = :position WHERE id = :id AND position IS NULL")
_COUNT: Final = text("SELECT COUNT(position), MAX(position) FROM audit")
_VERSION: Final = 2  # entries never change
_STATE_ACT: Final = "state.commit"
_AT_ONCE: Final = 500
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What `Audit.record_many` records of one of several acts."""

    resource: str
    outcome: Outcome = "done"
    detail: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An entry as it was written; a receipt of the act has its id, and names its leaf."""

    id: str
    entry: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    @property
    def content(self) -> Entry:
        """What it says."""
        return msgspec.json.decode(self.entry, type=Entry)

    @property
    def leaf(self) -> bytes:
        """Its leaf in the log."""
        return leaf_hash(self.salt, self.entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An entry as it was read, and found to be the host's.

    Attributes:
        position: Its place in the log; None until the sequencer gave it one.
    """

    tenant: str
    position: int | None
    recorded: Recorded


class Audit:
    """The log's writing and reading end.

    Args:
        clock: Epoch seconds.

    Attributes:
        on_record: Called after a transaction that recorded something was committed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._unsequenced: set[str] = set()
        self._last: OrderedDict[str, Recorded] = OrderedDict()
        self.on_record: Callable[[], None] = lambda: None

    # --- writing ------------------------------------------------------------------------------------

    def record(
        self,
        tx: Tx,
        caller: Caller,
        *,
        act: str,
        resource: str,
        outcome: Outcome = "done",
        detail: Mapping[str, str | int] | None = None,
    ) -> Recorded:
        """Record one act in the transaction of its effect; if that fails, so does the act."""
        [recorded] = self.record_many(
            tx, caller, act=act, events=[Event(resource=resource, outcome=outcome, detail=detail or {})]
        )
        return recorded

    def refuse(
        self,
        tx: Tx,
        caller: Caller,
        *,
        act: str,
        resource: str,
        detail: Mapping[str, str | int] | None = None,
    ) -> Recorded:
        """Record a refusal, which stays recorded when the transaction it ended is rolled back."""
        refusal = [Event(resource=resource, outcome="refused", detail=detail or {})]
        written = self._written(caller, act, refusal)
        rows = self._rows(tx.keys, caller.tenant, written)
        self._insert(tx, rows)
        tx.on_rollback(lambda aftermath: self._insert(aftermath, rows))
        self._remember(caller, written)
        return written[0]

    def record_many(self, tx: Tx, caller: Caller, *, act: str, events: Sequence[Event]) -> list[Recorded]:
        """Record several acts of one kind, an entry each."""
        written = self._written(caller, act, events)
        self._insert(tx, self._rows(tx.keys, caller.tenant, written))
        self._remember(caller, written)
        return written

    def take_last(
        self, correlation_id: str, *, outcomes: Collection[Outcome] | None = None
    ) -> Recorded | None:
        """The last entry that a request left, for its receipt, if it ended in one of these ways."""
        with self._lock:
            recorded = self._last.pop(correlation_id, None)
        if recorded is None or (outcomes is not None and recorded.content.outcome not in outcomes):
            return None
        return recorded

    def commit_state(self, tx: Tx, caller: Caller, *, counter: int, digest: str) -> Recorded:
        """Commit to the state of the caller's tenant: an entry that `committed_state` finds again."""
        event = Event(resource=f"state/{counter}", detail={"counter": counter, "digest": digest})
        written = self._written(caller, _STATE_ACT, [event])
        self._insert(
            tx,
            [{**row, "state": counter} for row in self._rows(tx.keys, caller.tenant, written)],
            _INSERT_STATE,
        )
        return written[0]

    # --- reading ------------------------------------------------------------------------------------

    def read(self, tx: Tx, tenant: str, *, after: str, limit: int) -> list[Entry]:
        """Read a tenant's entries in the order they were written.

        Raises:
            TamperedError: An entry is not one the host wrote.
        """
        return [found.recorded.content for found in self.read_written(tx, tenant, after=after, limit=limit)]

    def read_written(self, tx: Tx, tenant: str, *, after: str, limit: int) -> list[Written]:
        """As `read`, with what belongs to the entries' places in the log."""
        found = tx.execute(_SELECT, {"tenant": tenant, "after": after, "limit": limit})
        return [_checked(tx.keys, row, tenant) for row in found]

    def find(self, tx: Tx, tenant: str, entry_id: str) -> Written | None:
        """Read one entry of a tenant."""
        row = tx.execute(_SELECT_ONE, {"tenant": tenant, "id": entry_id}).first()
        return None if row is None else _checked(tx.keys, row, tenant)

    def placed(self, tx: Tx, tenant: str, *, start: int, end: int, limit: int) -> list[Written]:
        """Read a tenant's entries with places in [start, end), in their order in the log."""
        found = tx.execute(_SELECT_PLACED, {"tenant": tenant, "start": start, "end": end, "limit": limit})
        return [_checked(tx.keys, row, tenant) for row in found]

    def committed_state(self, tx: Tx, tenant: str) -> tuple[int, str] | None:
        """The highest state of a tenant that was committed to: its counter and digest.

        Raises:
            TamperedError: The entry is not one the host wrote.
        """
        row = tx.execute(_SELECT_STATE, {"tenant": tenant}).first()
        if row is None:
            return None
        entry = _checked(tx.keys, row, tenant).recorded.content
        if entry.act != _STATE_ACT:
            raise TamperedError("audit")
        return int(entry.detail["counter"]), str(entry.detail["digest"])

    # --- for the sequencer --------------------------------------------------------------------------

    def unsequenced(self, tx: Tx, *, limit: int) -> list[Written]:
        """Entries that have no place yet, in the order they are given one: by time, then as written."""
        return [_checked(tx.keys, row) for row in tx.execute(_SELECT_UNSEQUENCED, {"limit": limit})]

    def place(self, tx: Tx, entries: Sequence[Written], *, first: int) -> None:
        """Give entries their places, from `first` on."""
        tx.execute_many(
            _PLACE,
            [{"id": entry.recorded.id, "position": first + i} for i, entry in enumerate(entries)],
        )
        placed = [entry.recorded.id for entry in entries]
        tx.on_commit(lambda: self._sequenced(placed))

    def require_sequenced(self, tx: Tx, size: int) -> None:
        """Check that no entry is missing from a log of `size` leaves.

        Raises:
            TamperedError: Entries were deleted, or given places they do not have.
        """
        if tuple(tx.execute(_COUNT, {}).one()) != (size, size - 1 if size else None):
            raise TamperedError("audit")

    def require_none_lost(self, tx: Tx, expected: Collection[str]) -> None:
        """Check that entries this process wrote, and that wait no more, have been given places.

        Raises:
            TamperedError: One was deleted before it was sequenced.
        """
        waiting = sorted(self.waiting.intersection(expected))
        for start in range(0, len(waiting), _AT_ONCE):
            ids = waiting[start : start + _AT_ONCE]
            found = {row[0] for row in tx.execute(_SELECT_SEQUENCED, {"ids": ids})}
            if found != set(ids):
                raise TamperedError("audit")
            self._sequenced(found)

    @property
    def waiting(self) -> frozenset[str]:
        """The entries this process wrote that, as far as it knows, have no place yet."""
        with self._lock:
            return frozenset(self._unsequenced)

    # ------------------------------------------------------------------------------------------------

    def _written(self, caller: Caller, act: str, events: Sequence[Event]) -> list[Recorded]:
        at = int(self._clock() * 1000)
        salts = os.urandom(SALT_BYTES * len(events))
        written = []
        for index, event in enumerate(events):
            entry_id = self._entry_id(at)
            entry = Entry(
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
                detail=_with_purpose(event.detail, caller),
            )
            salt = salts[index * SALT_BYTES : (index + 1) * SALT_BYTES]
            written.append(Recorded(id=entry_id, entry=canonical(entry), salt=salt))
        return written

    def _rows(self, keys: RowKeys, tenant: str, written: Sequence[Recorded]) -> list[dict[str, Any]]:
        return [
            {
                "id": item.id,
                "tenant": tenant,
                "entry": item.entry.decode(),
                "salt": item.salt,
                "mac": _mac(keys, tenant, item.id, item.salt, item.entry),
            }
            for item in written
        ]

    def _insert(self, tx: Tx, rows: Sequence[Mapping[str, Any]], statement: Any = _INSERT) -> None:
        tx.execute_many(statement, rows)
        tx.on_commit(lambda: self._committed(rows))

    def _committed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with self._lock:
            self._unsequenced.update(row["id"] for row in rows)
        self.on_record()

    def _remember(self, caller: Caller, written: Sequence[Recorded]) -> None:
        if written:
            with self._lock:
                self._last[caller.correlation_id] = written[-1]
                if len(self._last) > _REMEMBERED:
                    self._last.popitem(last=False)

    def _sequenced(self, ids: Collection[str]) -> None:
        with self._lock:
            self._unsequenced.difference_update(ids)

    def _entry_id(self, at: int) -> str:
        # Sorts by time, then by the order of writing; the tail keeps replicas apart.
        return f"{at:012x}{next(self._count) & 0xFFFFFFFF:08x}{os.urandom(6).hex()}"


def _mac(keys: RowKeys, tenant: str, entry_id: str, salt: bytes, entry: bytes) -> bytes:
    # The salt has one length, so it and the entry are read one way.
    return row_mac(keys, row_binding(keys.deployment, tenant, "audit", entry_id, _VERSION), salt + entry)


def _checked(keys: RowKeys, row: Any, tenant: str | None = None) -> Written:
    """Trust a row only after its MAC, and only as an answer to what was asked."""
    entry_id, row_tenant, stored, salt, mac, position = row
    if not (isinstance(stored, str) and isinstance(salt, bytes) and isinstance(mac, bytes)):
        raise TamperedError("audit")
    if tenant is not None and row_tenant != tenant:
        raise TamperedError("audit")
    entry = stored.encode("utf-8", "surrogatepass")
    expected = _mac(keys, row_tenant, entry_id, salt, entry)
    if len(salt) != SALT_BYTES or not hmac.compare_digest(mac, expected):
        raise TamperedError("audit")
    recorded = Recorded(id=entry_id, entry=entry, salt=salt)
    return Written(tenant=row_tenant, position=position, recorded=recorded)


def _with_purpose(detail: Mapping[str, str | int], caller: Caller) -> dict[str, str | int]:
    """The detail of an entry, with what the caller says it acts for."""
    return {"purpose": caller.purpose, **detail} if caller.purpose else dict(detail)
