"""What a host knows of the rows of one tenant without asking the database.

A set digest over all rows tells that something is missing, not what. So that a row that was deleted,
brought back or put in is found *when it is read*, the host keeps the digest in parts: each table's rows
are divided, in the order of their ids, into ranges of a few rows, and each range has its own sum. A row
is read with its whole range, and believed, or believed to be absent, if the range has the right sum.
Memory grows by one short string and two integers for every dozen rows, and by nothing for an empty table.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloister_host.store.rows import AnyRow

__all__ = ["MODULUS", "Change", "Ledger", "Range", "RowCache", "RowName"]

MODULUS: Final = 1 << 256
LOADED_ROWS: Final = 12
MOST_ROWS: Final = 24
REMEMBERED_CHANGES: Final = 1024
ROW_OVERHEAD_BYTES: Final = 512

# A table and an id in it.
RowName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One row, before and after: its MAC, None where there was or is none, and its tag, there 0."""

    before: bytes | None
    after: bytes | None
    before_tag: int
    after_tag: int

    @property
    def difference(self) -> int:
        """What it adds to a sum."""
        return self.after_tag - self.before_tag


@dataclass(frozen=True, slots=True)
class Range:
    """The ids from `start` up to, and without, `end` (None: to the last): their number and sum."""

    start: str
    end: str | None
    count: int
    total: int


class _Table:
    """The ranges of one table: where each begins, how many rows it has, the sum of their tags."""

    __slots__ = ("_counts", "_starts", "_totals")

    def __init__(self, rows: Iterable[tuple[str, int]] = ()) -> None:
        self._starts: list[str] = [""]
        self._counts: list[int] = [0]
        self._totals: list[int] = [0]
        for row_id, tag in rows:
            if self._counts[-1] >= LOADED_ROWS:
                self._starts.append(row_id)
                self._counts.append(0)
                self._totals.append(0)
            self._counts[-1] += 1
            self._totals[-1] = (self._totals[-1] + tag) % MODULUS

    def range_of(self, row_id: str) -> Range:
        at = bisect_right(self._starts, row_id) - 1
        end = self._starts[at + 1] if at + 1 < len(self._starts) else None
        return Range(self._starts[at], end, self._counts[at], self._totals[at])

    def change(self, row_id: str, difference: int, rows: int) -> None:
        at = bisect_right(self._starts, row_id) - 1
        self._counts[at] += rows
        self._totals[at] = (self._totals[at] + difference) % MODULUS

    def split(self, start: str, rows: Sequence[tuple[str, int]]) -> None:
        """Divide a range whose rows were just found to have its sum."""
        at = bisect_right(self._starts, start) - 1
        if self._starts[at] != start or self._counts[at] != len(rows):
            return
        parts = _Table(rows)
        parts._starts[0] = start
        self._starts[at : at + 1] = parts._starts
        self._counts[at : at + 1] = parts._counts
        self._totals[at : at + 1] = parts._totals


class Ledger:
    """One tenant's rows at one value of its counter. Every method expects `lock` to be held.

    Attributes:
        counter: How many transactions have changed the tenant's rows.
        sealed: The state row's bytes at that counter.
        digest: The sum over every row.
    """

    def __init__(
        self, *, counter: int, sealed: bytes, digest: int, tables: Mapping[str, Iterable[tuple[str, int]]]
    ) -> None:
        self.counter = counter
        self.sealed = sealed
        self.digest = digest
        self._tables = {name: _Table(rows) for name, rows in tables.items()}
        self._recent: deque[tuple[int, frozenset[RowName]]] = deque(maxlen=REMEMBERED_CHANGES)

    def range_of(self, name: RowName) -> Range:
        """The range an id stands in, or would."""
        table = self._tables.get(name[0])
        return table.range_of(name[1]) if table else Range("", None, 0, 0)

    def advance(self, *, counter: int, sealed: bytes, digest: int, changes: Mapping[RowName, Change]) -> None:
        """Go on to the next state.

        Args:
            counter: Of the new state.
            sealed: Of the new state.
            digest: Of the new state.
            changes: Each row that changed.
        """
        for (table, row_id), change in changes.items():
            ranges = self._tables.setdefault(table, _Table())
            rows = (change.after is not None) - (change.before is not None)
            ranges.change(row_id, change.difference, rows)
        self.counter, self.sealed, self.digest = counter, sealed, digest
        self._recent.append((counter, frozenset(changes)))

    def changed_since(self, counter: int) -> frozenset[RowName] | None:
        """The rows that changed after `counter`; None if that is too long ago to know."""
        if counter == self.counter:
            return frozenset()
        if not self._recent or self._recent[0][0] > counter + 1:
            return None
        return frozenset().union(*(names for at, names in self._recent if at > counter))

    def verified(self, table: str, start: str, rows: Sequence[tuple[str, int]]) -> None:
        """Keep ranges small: this one was just found to hold exactly these rows."""
        if len(rows) > MOST_ROWS:
            self._tables[table].split(start, rows)


class RowCache:
    """Verified rows of all tenants, least recently used first out. Absence is remembered too.

    Args:
        max_bytes: About how much memory it may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[str, RowName], tuple[AnyRow | None, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tenant: str, name: RowName) -> tuple[AnyRow | None] | None:
        """The row, or its absence, in a tuple; None if it is not known."""
        key = (tenant, name)
        with self._lock:
            found = self._rows.get(key)
            if found is None:
                return None
            self._rows.move_to_end(key)
            return (found[0],)

    def put(self, tenant: str, name: RowName, row: AnyRow | None) -> None:
        """Remember a row, or that there is none."""
        size = ROW_OVERHEAD_BYTES + (row.size_bytes if row is not None else 0)
        with self._lock:
            self._drop((tenant, name))
            if size > self._max // 8:
                return
            self._rows[tenant, name] = (row, size)
            self._bytes += size
            while self._bytes > self._max:
                _, (_, freed) = self._rows.popitem(last=False)
                self._bytes -= freed

    def forget(self, tenant: str, names: Iterable[RowName] | None = None) -> None:
        """Forget some rows of a tenant, or all."""
        with self._lock:
            for key in [(tenant, n) for n in names] if names else [k for k in self._rows if k[0] == tenant]:
                self._drop(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._bytes = 0

    def _drop(self, key: tuple[str, RowName]) -> None:
        old = self._rows.pop(key, None)
        if old is not None:
            self._bytes -= old[1]
