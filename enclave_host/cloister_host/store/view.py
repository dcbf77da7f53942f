"""One transaction's view of one tenant's rows: what it has read, what it has changed, what it may believe."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from cloister_host.store.database import ConflictError, Session
from cloister_host.store.ledger import MODULUS, Change, Range, RowName
from cloister_host.store.rows import AnyRow, TamperedError
from cloister_host.store.state import States

__all__ = ["View"]

READ_ATTEMPTS: Final = 5


class View:
    """The rows of one tenant within one transaction.

    Args:
        session: The transaction.
        states: What this process knows.
        tenant: Whose rows.

    Raises:
        TamperedError: The database is not at a state that can be believed.
    """

    def __init__(self, session: Session, states: States, tenant: str) -> None:
        self._session = session
        self._states = states
        self._tenant = tenant
        self._ledger = states.current(session, tenant)
        self._since = self._ledger.counter
        self._used: set[RowName] = set()
        self._scanned: list[tuple[str, Range]] = []
        self._changes: dict[RowName, Change] = {}
        self._changed_ids: dict[str, list[str]] = {}
        self._rows: dict[RowName, AnyRow | None] = {}
        self._read: dict[RowName, AnyRow | None] = {}

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever written of this tenant."""
        return self._since == 0

    @property
    def changed(self) -> bool:
        """Whether this transaction has changed any row."""
        return bool(self._changes)

    def state(self) -> tuple[int, str]:
        """The counter and a keyed digest of the tenant's rows as they were found."""
        with self._states.lock:
            counter, digest = self._ledger.counter, self._ledger.digest
        return counter, self._states.digests.commitment(self._tenant, counter, digest)

    def known(self, name: RowName) -> tuple[AnyRow | None] | None:
        """The row, or its absence, where it need not be read; None where it must be."""
        self._used.add(name)
        if name in self._rows:
            return (self._rows[name],)
        if name in self._read:
            return (self._read[name],)
        cached = self._states.cache.get(self._tenant, name)
        if cached is not None:
            self._read[name] = cached[0]
        return cached

    def remember(self, name: RowName, row: AnyRow | None) -> None:
        """Keep a row that was just verified, for this transaction and those to come."""
        self._read[name] = row
        with self._states.lock:
            if self._ledger.counter == self._since:
                self._states.cache.put(self._tenant, name, row)

    def range_of(self, table: str, row_id: str) -> Range:
        """The range an id stands in."""
        with self._states.lock:
            return self._ledger.range_of((table, row_id))

    def verified(
        self, table: str, row_id: str, read: Callable[[Range], Sequence[Any]], *, scanned: bool = False
    ) -> Sequence[Any]:
        """Read the range an id stands in, and find that it holds what it must and nothing else.

        Args:
            table: The table.
            row_id: An id in the range, whether there is such a row or not.
            read: Reads a range: id and MAC first, whatever else after them.
            scanned: Every row of the range is used, not only the one with this id.

        Raises:
            TamperedError: A row was changed, deleted, put in or brought back outside the host.
        """
        for _ in range(READ_ATTEMPTS):
            with self._states.lock:
                at, part = self._ledger.counter, self._ledger.range_of((table, row_id))
            if scanned:
                self._scanned.append((table, part))
            rows = read(part)
            tags = [(raw[0], self._states.digests.tag(self._tenant, table, raw[0], raw[1])) for raw in rows]
            if sum(tag for _, tag in tags) % MODULUS == (part.total + self._pending(table, part)) % MODULUS:
                self._split(table, part, tags, at)
                return rows
            # Another process or thread may just have changed it; else somebody else did.
            self._ledger = self._states.current(self._session, self._tenant)
            if self._ledger.counter == at:
                raise TamperedError(table)
        raise ConflictError

    def wrote(self, name: RowName, row: AnyRow | None, *, touched: int) -> None:
        """Note a change that this transaction made.

        Args:
            name: Of the row.
            row: As it is now.
            touched: How many rows the statement changed: one, if the database is honest and no other
                transaction was faster.

        Raises:
            ConflictError: Another transaction was faster.
            TamperedError: The row is not there, or is there, against what was just read.
        """
        if touched != 1:
            raise TamperedError(name[0]) if self._session.alone else ConflictError
        self.replaced(name, row)

    def wrote_many(self, table: str, rows: Sequence[AnyRow], *, touched: int) -> None:
        """As `wrote`, of many rows."""
        if touched != len(rows):
            raise TamperedError(table) if self._session.alone else ConflictError
        for row in rows:
            self.replaced((table, row.id), row)

    def replaced(self, name: RowName, row: AnyRow | None) -> None:
        """Note a change that is known to have been made."""
        old, after = self._changes.get(name), row.mac if row is not None else None
        if old is None:
            insort(self._changed_ids.setdefault(name[0], []), name[1])
            read = self._read.get(name)
            before = read.mac if read is not None else None
            self._changes[name] = self._states.change(self._tenant, name, before, after)
        else:
            new = self._states.change(self._tenant, name, None, after)
            self._changes[name] = replace(old, after=after, after_tag=new.after_tag)
        self._rows[name] = row

    def erased(self, name: RowName, mac: bytes) -> None:
        """Note that a row was deleted unread. If it was not the host's, the sum shows it."""
        if name not in self._changes:
            insort(self._changed_ids.setdefault(name[0], []), name[1])
            self._changes[name] = self._states.change(self._tenant, name, mac, None)
            self._rows[name] = None
        else:
            self.replaced(name, None)

    def commit(self) -> None:
        """Write the tenant's next state."""
        changes = {name: change for name, change in self._changes.items() if change.before != change.after}
        if changes:
            rows = {name: self._rows[name] for name in changes}
            self._states.commit(
                self._session, self._tenant, since=self._since, used=self._uses, changes=changes, rows=rows
            )

    def _uses(self, name: RowName) -> bool:
        return name in self._used or any(
            table == name[0] and part.start <= name[1] and (part.end is None or name[1] < part.end)
            for table, part in self._scanned
        )

    def _pending(self, table: str, part: Range) -> int:
        """What this transaction's own changes add to the sum of a range."""
        ids = self._changed_ids.get(table, ())
        first = bisect_left(ids, part.start)
        last = len(ids) if part.end is None else bisect_left(ids, part.end)
        return sum(self._changes[table, row_id].difference for row_id in ids[first:last])

    def _split(self, table: str, part: Range, tags: Sequence[tuple[str, int]], at: int) -> None:
        if len(tags) == part.count and not self._changes:
            with self._states.lock:
                if self._ledger.counter == at:
                    self._ledger.verified(table, part.start, sorted(tags))
