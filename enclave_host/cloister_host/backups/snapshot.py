"""One moment of the database as the records of a backup; what is not the host's goes into none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cloister.backups.log import LogCheck
from cloister.backups.manifest import Manifest
from cloister.backups.records import Begin, End, Record, Rows, TableOf
from cloister.errors import LogError
from cloister_host.store import RowKeys, TamperedError
from cloister_host.store.database import Reading
from cloister_host.store.digests import Digests
from cloister_host.store.ledger import MODULUS
from cloister_host.store.rows import check_row
from cloister_host.store.schema import tables
from cloister_host.store.state import PROTECTED_COLUMNS

__all__ = ["FIRST_TABLES", "checked_records", "records"]

FIRST_TABLES: Final = ("roots",)
RECORD_BYTES: Final = 512 * 1024
VALUE_BYTES: Final = 16
# The log is recomputed as it is read, so its entries come in their order.
_ORDERS: Final = {"audit": (" WHERE position IS NOT NULL ORDER BY position", " WHERE position IS NULL")}


def records(reading: Reading, *, backup: str, deployment: str) -> Iterator[Record]:
    """Every row of every table of the program.

    Args:
        reading: One moment of the database.
        backup: The backup's id.
        deployment: Whose rows they are.

    Raises:
        TamperedError: A table is missing.
    """
    migrations = dict(reading.rows("SELECT name, digest FROM migrations ORDER BY name"))
    yield Begin(backup=backup, deployment=deployment, migrations=migrations)
    found, counts = reading.tables(), dict[str, int]()
    for name in (*FIRST_TABLES, *sorted(tables().keys() - set(FIRST_TABLES))):
        if name not in found:
            raise TamperedError(name)
        table = TableOf(name=name, columns=sorted(found[name]))
        yield table
        counts[name] = 0
        for order in _ORDERS.get(name, ("",)):
            columns = ", ".join(table.columns)
            # S608: names of the program's own migrations, and columns that are names (see `TableOf`).
            for part in _parts(reading.rows(f"SELECT {columns} FROM {name}{order}")):  # noqa: S608
                counts[name] += len(part)
                yield Rows(table=table, rows=part)
    yield End(rows=counts)


def checked_records(reading: Reading, keys: RowKeys, manifest: Manifest) -> Iterator[Record]:
    """`records`, each compared with what the host knows of it; a backup of a changed store is never whole.

    Args:
        reading: One moment of the database.
        keys: Row keys of the deployment.
        manifest: Names the backup; its head is the one of the same moment.

    Raises:
        TamperedError: Rows were changed, deleted, put in or brought back outside the host.
    """
    sums, log = _Sums(keys), LogCheck(manifest)
    try:
        for record in records(reading, backup=manifest.id, deployment=keys.deployment):
            if isinstance(record, Rows):
                sums.take(record)
                log.take(record)
            if isinstance(record, End):
                # Before the last record: without it nobody takes the rest for a backup.
                sums.finish()
                log.finish()
            yield record
    except LogError:
        raise TamperedError("audit") from None


class _Sums:
    """The digest of every tenant's rows, against what its state says."""

    def __init__(self, keys: RowKeys) -> None:
        self._keys = keys
        self._digests = Digests(keys)
        self._sums = Counter[str]()
        self._states: dict[str, int] = {}

    def take(self, record: Rows) -> None:
        """Check the MACs of protected rows, and add them up."""
        table, columns = record.table.name, record.table.columns
        if table == "tenant_states":
            for row in record.rows:
                tenant, counter, sealed = _named(columns, row, "tenant", "counter", "sealed")
                if not isinstance(sealed, bytes) or type(counter) is not int:
                    raise TamperedError(table)
                self._states[tenant] = self._digests.open(tenant, counter, sealed)
        if frozenset(columns) != PROTECTED_COLUMNS:
            return
        for row in record.rows:
            tenant, *raw = _named(columns, row, "tenant", "id", "mac", "version", "content", "secret")
            check_row(self._keys, tenant, table, raw)
            self._sums[tenant] = (
                self._sums[tenant] + self._digests.tag(tenant, table, raw[0], raw[1])
            ) % MODULUS

    def finish(self) -> None:
        """Compare every tenant's sum with its state."""
        if not self._states or any(
            self._sums[tenant] != self._states.get(tenant, 0)
            for tenant in self._sums.keys() | self._states.keys()
        ):
            raise TamperedError("the tenant")


def _named(columns: Sequence[str], row: Sequence[Any], *names: str) -> list[Any]:
    return [row[columns.index(name)] for name in names]


def _parts(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    part: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sum(VALUE_BYTES + (len(value) if isinstance(value, str | bytes) else 0) for value in row)
        if size >= RECORD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
