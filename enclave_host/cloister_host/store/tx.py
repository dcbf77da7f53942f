"""One transaction: protected rows and their blobs in, protected rows and their blobs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import TextClause, text

from cloister.secret import Secret
from cloister_host.store.blobs import BlobKey, Blobs
from cloister_host.store.canonical import canonical
from cloister_host.store.database import Session
from cloister_host.store.generations import generations_of
from cloister_host.store.ledger import Range
from cloister_host.store.rows import (
    AnyRow,
    ExistsError,
    Row,
    RowKeys,
    Table,
    TamperedError,
    check_row,
    row_binding,
    row_mac,
)
from cloister_host.store.state import States
from cloister_host.store.statements import Rows
from cloister_host.store.view import View

__all__ = ["MAX_SCAN_ROWS", "Tx"]

MAX_SCAN_ROWS: Final = 1000

RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class Tenancy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of a `known_tenants` row: that a tenant has a state."""


# Rows of nobody's: that a tenant's state, with all its rows, was deleted is noticed by them.
_NOBODY: Final = ""
_KNOWN: Final = Table("known_tenants", Tenancy, "tenant")


class Tx:
    """A write transaction. Everything in it happens, or nothing does.

    Attributes:
        keys: The row keys, for tables with a shape of their own.
    """

    def __init__(self, session: Session, keys: RowKeys, blobs: Blobs, states: States) -> None:
        self._session = session
        self._blobs = blobs
        self._states = states
        self._views: dict[str, View] = {}
        self._rolled_back: list[Callable[[Tx], object]] = []
        self._committed: list[Callable[[], object]] = []
        self.keys: Final = keys
        if session.disturbed:
            # What was verified is still true, but what somebody did to it should be found.
            states.cache.clear()

    # --- protected rows -----------------------------------------------------------------------------

    def get(self, table: Table[RecordT], tenant: str, row_id: str) -> Row[RecordT] | None:
        """Read one row.

        Raises:
            TamperedError: The row is not one the host wrote in this place, not its latest version, or
                it is missing.
        """
        known = self._view(tenant).known((table.name, row_id))
        return known[0] if known is not None else self._read(table, tenant, row_id)

    def get_many(self, table: Table[RecordT], tenant: str, row_ids: Sequence[str]) -> dict[str, Row[RecordT]]:
        """Read the rows that exist among `row_ids`, by id."""
        view, found, wanted = self._view(tenant), {}, frozenset(row_ids)
        for row_id in sorted(wanted):
            known = view.known((table.name, row_id))
            row = known[0] if known is not None else self._read(table, tenant, row_id, also=wanted)
            if row is not None:
                found[row_id] = row
        return found

    def scan(
        self,
        table: Table[RecordT],
        tenant: str,
        *,
        prefix: str = "",
        after: str = "",
        limit: int = MAX_SCAN_ROWS,
    ) -> list[Row[RecordT]]:
        """Read rows in the order of their ids: those that begin with `prefix` and follow `after`."""
        wanted = min(limit, MAX_SCAN_ROWS)
        found: list[Row[RecordT]] = []
        for raw in self._scanned(table.name, tenant, max(prefix, after), prefix + _LAST):
            if raw[0] > after and raw[0].startswith(prefix):
                found.append(self._checked(table, tenant, raw))
            if len(found) >= wanted:
                break
        return found

    def insert(
        self,
        table: Table[RecordT],
        tenant: str,
        row_id: str,
        record: RecordT,
        *,
        secret: bytes | None = None,
        blob: bytes | None = None,
    ) -> Row[RecordT]:
        """Write a new row.

        Args:
            table: The table.
            tenant: Whose row it is.
            row_id: Its primary key within the tenant.
            record: Its content.
            secret: Its secret part, sealed here under the tenant's key.
            blob: Its secret part, if the caller sealed it already.

        Raises:
            ExistsError: There is one with this id.
        """
        if self.get(table, tenant, row_id) is not None:
            raise ExistsError(f"this {table.noun} exists already", hint="choose another name")
        if secret is not None:
            blob = self.blob_key(tenant, table.name).seal(row_id, 1, secret)
        row = self._row(table, tenant, row_id, version=1, record=record, blob=blob)
        return self._write(_sql(table.name).insert, table, row)

    def put(
        self,
        table: Table[RecordT],
        tenant: str,
        row_id: str,
        record: RecordT,
        *,
        secret: bytes | None = None,
        blob: bytes | None = None,
    ) -> Row[RecordT]:
        """Write a row over the one that is there, or a new one; the version counts up. As `insert`."""
        old = self.get(table, tenant, row_id)
        if old is None:
            return self.insert(table, tenant, row_id, record, secret=secret, blob=blob)
        version = old.version + 1
        if secret is not None:
            blob = self.blob_key(tenant, table.name).seal(row_id, version, secret)
        row = self._row(table, tenant, row_id, version=version, record=record, blob=blob)
        return self._write(_sql(table.name).update, table, row)

    def put_many(
        self,
        table: Table[RecordT],
        tenant: str,
        records: Mapping[str, RecordT],
        *,
        over: Mapping[str, Row[RecordT]],
    ) -> None:
        """Write many rows without secret parts at once.

        Args:
            table: The table.
            tenant: Whose rows they are.
            records: What to write, by id.
            over: Those of them that are there, as read in this transaction; of the others it was read that
                they are not.

        Raises:
            TamperedError: The database does not hold what was just read from it.
        """
        added: list[AnyRow] = []
        changed: list[AnyRow] = []
        for row_id, record in records.items():
            old = over.get(row_id)
            version = old.version + 1 if old else 1
            row = self._row(table, tenant, row_id, version=version, record=record, blob=None)
            (changed if old else added).append(row)
        for statement, rows in ((_sql(table.name).insert, added), (_sql(table.name).update, changed)):
            touched = self._session.execute_many(statement, [_parameters(row) for row in rows])
            self._view(tenant).wrote_many(table.name, rows, touched=touched)

    def delete(self, table: Table[RecordT], tenant: str, row_id: str) -> bool:
        """Delete a row; tells whether it was there."""
        if self.get(table, tenant, row_id) is None:
            return False
        result = self._session.execute(_sql(table.name).delete, {"tenant": tenant, "id": row_id})
        self._view(tenant).wrote((table.name, row_id), None, touched=result.rowcount)
        return True

    def erase(self, table: str, tenant: str) -> int:
        """Delete every row of a tenant in one protected table, unread; tells how many there were."""
        view = self._view(tenant)
        found = self._session.execute(_sql(table).macs, {"tenant": tenant}).all()
        for row_id, mac in found:
            view.erased((table, row_id), mac)
        self._session.execute(_sql(table).erase, {"tenant": tenant})
        return len(found)

    def reveal(self, table: Table[RecordT], row: Row[RecordT]) -> Secret:
        """Open the secret part of a row."""
        if row.blob is None:
            raise TamperedError(table.name)
        return Secret(self.blob_key(row.tenant, table.name).open(row.id, row.version, row.blob))

    def state(self, tenant: str) -> tuple[int, str]:
        """The counter of a tenant's rows, and a keyed digest of them that tells nothing else."""
        return self._view(tenant).state()

    def protected_tables(self) -> frozenset[str]:
        """The names of all protected tables."""
        return frozenset(self._states.protected(self._session))

    # --- keys of a tenant ---------------------------------------------------------------------------

    def create_tenant_kek(self, tenant: str) -> None:
        """Draw the KEK of a new tenant."""
        self._blobs.create_kek(self, tenant)

    def root_generation(self, tenant: str) -> int:
        """The generation of the root key that wraps a tenant's KEK; 0 if it has none."""
        return self._blobs.generation(self, tenant)

    def root_generations(self) -> frozenset[int]:
        """The generations of the root key that were not destroyed: a copy of one of them may still open."""
        found = generations_of(self)
        return frozenset(number for number, record in found.items() if record.state != "destroyed")

    def rewrap_tenant_kek(self, tenant: str, generation: int) -> bool:
        """Wrap a tenant's KEK under another generation of the root key; tells whether that was to be done."""
        return self._blobs.rewrap(self, tenant, generation)

    def is_open(self, tenant: str) -> bool:
        """Whether anything of a tenant can be opened: it is there, and not sealed off."""
        return self._blobs.is_open(self, tenant)

    def seal_off(self, tenant: str, *, sealed: bool) -> None:
        """Let nothing of a tenant be opened any more, on any host of the store, or again."""
        self._blobs.seal_off(self, tenant, sealed=sealed)

    def blob_key(self, tenant: str, table: str) -> BlobKey:
        """The key for a tenant's blobs in one table."""
        return self._blobs.key(self, tenant, table)

    def derived_key(self, tenant: str, purpose: str) -> Secret:
        """A key of the tenant for another purpose than blobs."""
        return self._blobs.derive(self, tenant, purpose)

    # --- tables with a shape of their own -----------------------------------------------------------

    def execute(self, statement: TextClause, parameters: Mapping[str, Any]) -> Rows:
        """Run one constant statement with bound parameters."""
        return self._session.execute(statement, parameters)

    def execute_many(self, statement: TextClause, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run one constant statement for each set of parameters."""
        self._session.execute_many(statement, parameters)

    # --- the end of the transaction -----------------------------------------------------------------

    def defer_durability(self) -> None:
        """Commit without waiting for the disk: a crash may lose this transaction, never reorder it.

        For the first of two transactions, when nothing outside the store sees what was done here before
        the second one is durable.
        """
        self._session.deferred = True

    def on_commit(self, action: Callable[[], object]) -> None:
        """Do this once the transaction is committed: what is remembered in memory changes only then."""
        self._committed.append(action)

    @property
    def commit_actions(self) -> Sequence[Callable[[], object]]:
        """What `on_commit` was given."""
        return tuple(self._committed)

    def on_rollback(self, action: Callable[[Tx], object]) -> None:
        """Do this in a transaction of its own if this one is rolled back: refusals are logged so."""
        self._rolled_back.append(action)

    @property
    def rollback_actions(self) -> Sequence[Callable[[Tx], object]]:
        """What `on_rollback` was given."""
        return tuple(self._rolled_back)

    def write_states(self) -> None:
        """Write the next state of every tenant whose rows were changed; the last thing before the commit.

        Raises:
            ConflictError: Another transaction has changed something this one used.
        """
        for tenant, view in list(self._views.items()):
            if view.changed and view.is_new and tenant != _NOBODY:
                self.insert(_KNOWN, _NOBODY, tenant, Tenancy())
        for _, view in sorted(self._views.items()):
            if view.changed:
                view.commit()

    # ------------------------------------------------------------------------------------------------

    def _view(self, tenant: str) -> View:
        view = self._views.get(tenant)
        if view is None:
            view = self._views[tenant] = View(self._session, self._states, tenant)
            if view.is_new and tenant != _NOBODY and self.get(_KNOWN, _NOBODY, tenant) is not None:
                raise TamperedError(_KNOWN.name)
        return view

    def _scanned(self, table: str, tenant: str, start: str, end: str) -> Iterator[Any]:
        """Rows of whole ranges, from the one that `start` stands in up to the one that `end` stands in."""
        view, statement = self._view(tenant), _sql(table).scan

        def read(part: Range) -> Sequence[Any]:
            bounds = {"tenant": tenant, "start": part.start, "end": part.end or _LAST}
            return self._session.execute(statement, bounds).all()

        at: str | None = start
        while at is not None and at < end:
            part = view.range_of(table, at)
            yield from view.verified(table, at, read, scanned=True)
            at = part.end

    def _read(
        self, table: Table[RecordT], tenant: str, row_id: str, *, also: frozenset[str] = frozenset()
    ) -> Row[RecordT] | None:
        """Read a row with its range; keep those of the same range that are asked for next."""
        view, sql = self._view(tenant), _sql(table.name)
        statement, wanted = (sql.scan, {}) if len(also) > 1 else (sql.get, {"id": row_id})

        def read(part: Range) -> Sequence[Any]:
            bounds = {"tenant": tenant, "start": part.start, "end": part.end or _LAST}
            return self._session.execute(statement, {**bounds, **wanted}).all()

        found: Row[RecordT] | None = None
        for raw in view.verified(table.name, row_id, read):
            if raw[0] == row_id:
                found = self._checked(table, tenant, raw)
            elif raw[0] in also:
                view.remember((table.name, raw[0]), self._checked(table, tenant, raw))
        view.remember((table.name, row_id), found)
        return found

    def _write(self, statement: TextClause, table: Table[RecordT], row: Row[RecordT]) -> Row[RecordT]:
        result = self._session.execute(statement, _parameters(row))
        self._view(row.tenant).wrote((table.name, row.id), row, touched=result.rowcount)
        return row

    def _row(
        self,
        table: Table[RecordT],
        tenant: str,
        row_id: str,
        *,
        version: int,
        record: RecordT,
        blob: bytes | None,
    ) -> Row[RecordT]:
        binding = row_binding(self.keys.deployment, tenant, table.name, row_id, version)
        mac = row_mac(self.keys, binding, canonical(record), blob)
        return Row(tenant=tenant, id=row_id, version=version, record=record, blob=blob, mac=mac)

    def _checked(self, table: Table[RecordT], tenant: str, raw: Any) -> Row[RecordT]:
        """Trust a row only after its MAC."""
        row_id, mac, version, _, blob = raw
        stored = check_row(self.keys, tenant, table.name, raw)
        record = msgspec.json.decode(stored, type=table.record)
        return Row(tenant=tenant, id=row_id, version=version, record=record, blob=blob, mac=mac)


def _parameters(row: AnyRow) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "id": row.id,
        "version": row.version,
        "content": canonical(row.record).decode(),
        "secret": row.blob,
        "mac": row.mac,
    }


# Above every id: ids never hold U+10FFFF.
_LAST: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class _Sql:
    """The statements of one protected table."""

    get: TextClause
    scan: TextClause
    insert: TextClause
    update: TextClause
    delete: TextClause
    macs: TextClause
    erase: TextClause


@cache
def _sql(name: str) -> _Sql:
    where = f"FROM {name} WHERE tenant = :tenant AND id >= :start AND id < :end"
    # S608 below: `name` is a constant of the program, never input.
    return _Sql(
        # The id and MAC of a whole range, and all of the one row that is wanted.
        get=text(
            "SELECT id, mac, CASE WHEN id = :id THEN version END, CASE WHEN id = :id THEN content END,"
            f" CASE WHEN id = :id THEN secret END {where}"
        ),
        scan=text(f"SELECT id, mac, version, content, secret {where} ORDER BY id"),
        insert=text(
            f"INSERT INTO {name} (tenant, id, version, content, secret, mac)"  # noqa: S608 (a constant)
            " VALUES (:tenant, :id, :version, :content, :secret, :mac) ON CONFLICT (tenant, id) DO NOTHING"
        ),
        update=text(
            f"UPDATE {name} SET version = :version, content = :content, secret = :secret, mac = :mac"  # noqa: S608 (a constant)
            " WHERE tenant = :tenant AND id = :id AND version = :version - 1"
        ),
        delete=text(f"DELETE FROM {name} WHERE tenant = :tenant AND id = :id"),  # noqa: S608 (a constant)
        macs=text(f"SELECT id, mac FROM {name} WHERE tenant = :tenant"),  # noqa: S608 (a constant)
        erase=text(f"DELETE FROM {name} WHERE tenant = :tenant"),  # noqa: S608 (a constant)
    )
