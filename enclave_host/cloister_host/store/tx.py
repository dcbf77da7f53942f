"""One transaction: protected rows and their blobs in, protected rows and their blobs out."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import TextClause, bindparam, text

from cloister.secret import Secret
from cloister_host.store.blobs import BlobKey, Blobs
from cloister_host.store.canonical import canonical
from cloister_host.store.rows import ExistsError, Row, RowKeys, Table, TamperedError, row_binding, row_mac

__all__ = ["MAX_SCAN_ROWS", "Tx"]

MAX_SCAN_ROWS: Final = 1000

RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class Tx:
    """A write transaction. Everything in it happens, or nothing does.

    Attributes:
        keys: The row keys, for tables with a shape of their own.
    """

    def __init__(self, connection: sqlalchemy.Connection, keys: RowKeys, blobs: Blobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._rolled_back: list[Callable[[Tx], object]] = []
        self._committed: list[Callable[[], object]] = []
        self.keys: Final = keys

    # --- protected rows -----------------------------------------------------------------------------

    def get(self, table: Table[RecordT], tenant: str, row_id: str) -> Row[RecordT] | None:
        """Read one row.

        Raises:
            TamperedError: The row is not one the host wrote in this place.
        """
        found = self._connection.execute(_sql(table.name).get, {"tenant": tenant, "id": row_id}).first()
        return (
            None
            if found is None
            else self._checked(table, tenant, found, lambda found_id: found_id == row_id)
        )

    def get_many(self, table: Table[RecordT], tenant: str, row_ids: Sequence[str]) -> dict[str, Row[RecordT]]:
        """Read the rows that exist among `row_ids`, by id."""
        wanted = frozenset(row_ids)
        found = self._connection.execute(_sql(table.name).get_many, {"tenant": tenant, "ids": list(wanted)})
        rows = (self._checked(table, tenant, raw, wanted.__contains__) for raw in found)
        return {row.id: row for row in rows}

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
        found = self._connection.execute(
            _sql(table.name).scan,
            {
                "tenant": tenant,
                "after": after,
                "prefix": prefix,
                # The first text that no longer begins with the prefix: ids never hold U+10FFFF.
                "end": prefix + "\U0010ffff",
                "limit": min(limit, MAX_SCAN_ROWS),
            },
        )
        return [self._checked(table, tenant, raw, lambda row_id: row_id.startswith(prefix)) for raw in found]

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
        if secret is not None:
            blob = self.blob_key(tenant, table.name).seal(row_id, 1, secret)
        row = Row(tenant=tenant, id=row_id, version=1, record=record, blob=blob)
        if self._write(_sql(table.name).insert, table, row) != 1:
            raise ExistsError(f"this {table.noun} exists already", hint="choose another name")
        return row

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
        row = Row(tenant=tenant, id=row_id, version=version, record=record, blob=blob)
        if self._write(_sql(table.name).update, table, row, old_version=old.version) != 1:
            raise TamperedError(table.name)
        return row

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
            over: Those of them that are there, as read in this transaction.

        Raises:
            TamperedError: The database does not hold what was just read from it.
        """
        rows = {
            row_id: Row(
                tenant=tenant,
                id=row_id,
                version=over[row_id].version + 1 if row_id in over else 1,
                record=record,
                blob=None,
            )
            for row_id, record in records.items()
        }
        added = [self._parameters(table, row) for row_id, row in rows.items() if row_id not in over]
        changed = [
            self._parameters(table, row, old_version=row.version - 1)
            for row_id, row in rows.items()
            if row_id in over
        ]
        for statement, parameters in ((_sql(table.name).insert, added), (_sql(table.name).update, changed)):
            if parameters and self._connection.execute(statement, parameters).rowcount != len(parameters):
                raise TamperedError(table.name)

    def delete(self, table: Table[RecordT], tenant: str, row_id: str) -> bool:
        """Delete a row; tells whether it was there."""
        result = self._connection.execute(_sql(table.name).delete, {"tenant": tenant, "id": row_id})
        return result.rowcount == 1

    def reveal(self, table: Table[RecordT], row: Row[RecordT]) -> Secret:
        """Open the secret part of a row."""
        if row.blob is None:
            raise TamperedError(table.name)
        return Secret(self.blob_key(row.tenant, table.name).open(row.id, row.version, row.blob))

    # --- keys of a tenant ---------------------------------------------------------------------------

    def create_tenant_kek(self, tenant: str) -> None:
        """Draw the KEK of a new tenant."""
        self._blobs.create_kek(self, tenant)

    def root_generation(self, tenant: str) -> int:
        """The generation of the root key that wraps a tenant's KEK; 0 if it has none."""
        return self._blobs.generation(self, tenant)

    def root_generations(self) -> frozenset[int]:
        """The generations of the root key that this store still holds, sealed."""
        return frozenset(row[0] for row in self._connection.execute(text("SELECT generation FROM roots")))

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

    def execute(self, statement: TextClause, parameters: Mapping[str, Any]) -> sqlalchemy.CursorResult[Any]:
        """Run one constant statement with bound parameters."""
        return self._connection.execute(statement, parameters)

    def execute_many(self, statement: TextClause, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run one constant statement for each set of parameters."""
        if parameters:
            self._connection.execute(statement, parameters)

    # --- what follows the transaction's end ---------------------------------------------------------

    def on_rollback(self, action: Callable[[Tx], object]) -> None:
        """Do this in a transaction of its own if this one is rolled back: refusals are logged so."""
        self._rolled_back.append(action)

    def on_commit(self, action: Callable[[], object]) -> None:
        """Do this once the transaction is committed: what is remembered in memory changes only then."""
        self._committed.append(action)

    @property
    def commit_actions(self) -> Sequence[Callable[[], object]]:
        """What `on_commit` was given."""
        return tuple(self._committed)

    @property
    def rollback_actions(self) -> Sequence[Callable[[Tx], object]]:
        """What `on_rollback` was given."""
        return tuple(self._rolled_back)

    # ------------------------------------------------------------------------------------------------

    def _write(self, statement: TextClause, table: Table[RecordT], row: Row[RecordT], **more: Any) -> int:
        return self._connection.execute(statement, self._parameters(table, row, **more)).rowcount

    def _parameters(self, table: Table[RecordT], row: Row[RecordT], **more: Any) -> dict[str, Any]:
        content = canonical(row.record)
        return {
            "tenant": row.tenant,
            "id": row.id,
            "version": row.version,
            "content": content.decode(),
            "secret": row.blob,
            "mac": row_mac(self.keys, self._binding(table, row.tenant, row.id, row.version), content),
            **more,
        }

    def _binding(self, table: Table[RecordT], tenant: str, row_id: str, version: int) -> bytes:
        return row_binding(self.keys.deployment, tenant, table.name, row_id, version)

    def _checked(
        self, table: Table[RecordT], tenant: str, raw: Any, asked_for: Callable[[str], bool]
    ) -> Row[RecordT]:
        """Trust a row only after its MAC, and only as an answer to what was asked."""
        row_id, version, content, blob, mac = raw
        if not (isinstance(row_id, str) and isinstance(version, int) and isinstance(content, str)):
            raise TamperedError(table.name)
        if not isinstance(mac, bytes) or not isinstance(blob, bytes | None):
            raise TamperedError(table.name)
        stored = content.encode("utf-8", "surrogatepass")
        expected = row_mac(self.keys, self._binding(table, tenant, row_id, version), stored)
        if not hmac.compare_digest(mac, expected) or not asked_for(row_id):
            raise TamperedError(table.name)
        record = msgspec.json.decode(stored, type=table.record)
        return Row(tenant=tenant, id=row_id, version=version, record=record, blob=blob)


@dataclass(frozen=True, slots=True)
class _Sql:
    """The statements of one protected table."""

    get: TextClause
    get_many: TextClause
    scan: TextClause
    insert: TextClause
    update: TextClause
    delete: TextClause


@cache
def _sql(name: str) -> _Sql:
    columns = "SELECT id, version, content, secret, mac"
    # S608 below: `name` is a constant of the program, never input.
    return _Sql(
        get=text(f"{columns} FROM {name} WHERE tenant = :tenant AND id = :id"),
        get_many=text(f"{columns} FROM {name} WHERE tenant = :tenant AND id IN :ids").bindparams(
            bindparam("ids", expanding=True)
        ),
        scan=text(
            f"{columns} FROM {name} WHERE tenant = :tenant AND id > :after AND id >= :prefix AND id < :end"
            " ORDER BY id LIMIT :limit"
        ),
        insert=text(
            f"INSERT INTO {name} (tenant, id, version, content, secret, mac)"  # noqa: S608 (a constant)
            " VALUES (:tenant, :id, :version, :content, :secret, :mac) ON CONFLICT (tenant, id) DO NOTHING"
        ),
        update=text(
            f"UPDATE {name} SET version = :version, content = :content, secret = :secret, mac = :mac"  # noqa: S608 (a constant)
            " WHERE tenant = :tenant AND id = :id AND version = :old_version"
        ),
        delete=text(f"DELETE FROM {name} WHERE tenant = :tenant AND id = :id"),  # noqa: S608 (a constant)
    )
