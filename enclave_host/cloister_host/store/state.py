"""The state of each tenant: a counter and a digest over every row that decides anything (PROTOCOL 7).

A transaction that changes rows of a tenant writes the next state in the same commit, with a list of what
it changed. Every transaction that touches a tenant reads its state row first, and

* a state that is the one in memory says that memory is current: what was verified stays verified;
* a later one was written by another process, whose list of changes is followed, or all rows are read
  again; either way the rows must have the digest of that state;
* an earlier one, or another one of the same counter, is a database that was rolled back or forked.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import TextClause, text

from cloister_host.store.database import ConflictError, Session
from cloister_host.store.digests import Digests
from cloister_host.store.ledger import MODULUS, Change, Ledger, RowCache, RowName
from cloister_host.store.rows import AnyRow, RowKeys, TamperedError, check_row

__all__ = ["PROTECTED_COLUMNS", "States"]

KEPT_CHANGES: Final = 4096
CACHE_BYTES: Final = 64 * 1024 * 1024
LOAD_ATTEMPTS: Final = 3
PROTECTED_COLUMNS: Final = frozenset({"tenant", "id", "version", "content", "secret", "mac"})

# The schema is the database's: a name of its owner's making goes into no statement.
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_STATES: Final = "tenant_states"
_SELECT: Final = text("SELECT counter, sealed FROM tenant_states WHERE tenant = :tenant")
_SELECT_LOCKED: Final = text("SELECT counter, sealed FROM tenant_states WHERE tenant = :tenant FOR UPDATE")
_SELECT_ALL: Final = text("SELECT tenant FROM tenant_states ORDER BY tenant")
_INSERT: Final = text(
    "INSERT INTO tenant_states (tenant, counter, sealed) VALUES (:tenant, :counter, :sealed)"
    " ON CONFLICT (tenant) DO NOTHING"
)
_UPDATE: Final = text(
    "UPDATE tenant_states SET counter = :counter, sealed = :sealed"
    " WHERE tenant = :tenant AND counter = :counter - 1"
)
_CHANGES: Final = text(
    "SELECT counter, changes FROM tenant_changes WHERE tenant = :tenant AND counter > :after ORDER BY counter"
)
_ADD_CHANGES: Final = text(
    "INSERT INTO tenant_changes (tenant, counter, changes) VALUES (:tenant, :counter, :changes)"
)
_DROP_CHANGES: Final = text("DELETE FROM tenant_changes WHERE tenant = :tenant AND counter <= :before")

_Listed = list[tuple[str, str, bytes | None, bytes | None]]


class States:
    """The states of all tenants, as this process knows them.

    Args:
        keys: Row keys of the deployment.
        snapshot: Opens a transaction that sees one moment of the database, whatever others do.
    """

    def __init__(self, keys: RowKeys, snapshot: Callable[[], AbstractContextManager[Session]]) -> None:
        self.lock: Final = threading.RLock()
        self.cache: Final = RowCache(CACHE_BYTES)
        self.digests: Final = Digests(keys)
        self._keys = keys
        self._snapshot = snapshot
        self._ledgers: dict[str, Ledger] = {}
        self._tables: tuple[str, ...] = ()

    def current(self, session: Session, tenant: str) -> Ledger:
        """The tenant's ledger at the state the database is in.

        Raises:
            TamperedError: The database was rolled back, or its rows do not have the digest.
        """
        known = self._ledgers.get(tenant)
        least = known.counter if known is not None else -1
        return self._follow(session, tenant, session.execute(_SELECT, {"tenant": tenant}).first(), least)

    def counters(self) -> Mapping[str, int]:
        """The highest counter of each tenant that this process has seen."""
        with self.lock:
            return {tenant: ledger.counter for tenant, ledger in self._ledgers.items()}

    def change(self, tenant: str, name: RowName, before: bytes | None, after: bytes | None) -> Change:
        """A change of one row from one MAC to another."""
        tags = (0 if mac is None else self.digests.tag(tenant, *name, mac) for mac in (before, after))
        return Change(before, after, *tags)

    def commit(
        self,
        session: Session,
        tenant: str,
        *,
        since: int,
        used: Callable[[RowName], bool],
        changes: Mapping[RowName, Change],
        rows: Mapping[RowName, AnyRow | None],
    ) -> None:
        """Write the next state of a tenant, last thing before the commit.

        Args:
            session: The transaction.
            tenant: Whose rows it changes.
            since: The counter at which it began to look at the tenant's rows.
            used: Whether it has read or written this row, or looked for it.
            changes: What it changed.
            rows: The same rows as they are now, None where there is none any more.

        Raises:
            ConflictError: Another transaction has changed something it used.
        """
        known = self._ledgers.get(tenant)
        least = known.counter if known is not None else -1
        found = session.execute(_SELECT_LOCKED, {"tenant": tenant}).first()
        with self.lock:
            ledger = self._follow(session, tenant, found, least)
            others = ledger.changed_since(since)
            if others is None or any(map(used, others)):
                raise ConflictError
            counter, digest = ledger.counter + 1, (ledger.digest + _difference(changes)) % MODULUS
        sealed = self.digests.seal(tenant, counter, digest)
        values = {"tenant": tenant, "counter": counter, "sealed": sealed}
        if session.execute(_UPDATE if counter > 1 else _INSERT, values).rowcount != 1:
            raise ConflictError
        listed: _Listed = [(table, row_id, c.before, c.after) for (table, row_id), c in changes.items()]
        names = {"tenant": tenant, "counter": counter}
        session.execute(_ADD_CHANGES, {**names, "changes": msgspec.msgpack.encode(listed)})
        if counter % (KEPT_CHANGES // 4) == 0:
            session.execute(_DROP_CHANGES, {"tenant": tenant, "before": counter - KEPT_CHANGES})
        session.after_commit(
            lambda: self._publish(
                tenant, counter=counter, sealed=sealed, digest=digest, changes=changes, rows=rows
            )
        )

    def verify(self, session: Session) -> Mapping[str, int]:
        """Read every row of every tenant, content and all, and compare with its digest; gives the counters.

        Raises:
            TamperedError: A tenant's rows do not have it.
        """
        found: dict[str, int] = {}
        failure: TamperedError | None = None
        for [tenant] in session.execute(_SELECT_ALL):
            try:
                found[tenant] = self._verify(session, tenant)
            except TamperedError as error:
                failure = failure or error
        with self.lock:
            if failure is None and (not found or self._ledgers.keys() - found.keys() - {""}):
                failure = TamperedError(_STATES)
        if failure is not None:
            raise failure
        return found

    def _verify(self, session: Session, tenant: str) -> int:
        loaded = self._load(session, tenant, whole=True)
        with self.lock:
            known = self._ledgers.setdefault(tenant, loaded)
            if loaded.counter < known.counter and session.alone:
                raise TamperedError(_STATES)
            if loaded.counter == known.counter and loaded.digest != known.digest:
                raise TamperedError(_STATES)
        return loaded.counter

    # ------------------------------------------------------------------------------------------------

    def _follow(self, session: Session, tenant: str, found: Any, least: int) -> Ledger:
        """Bring memory to the state that was found; `least` is the counter known before it was asked for."""
        counter, sealed = (0, b"") if found is None else tuple(found)
        if not isinstance(counter, int) or not isinstance(sealed, bytes) or counter < max(least, 0):
            raise TamperedError(_STATES)
        with self.lock:
            ledger = self._ledgers.get(tenant)
            if ledger is not None and ledger.counter >= counter:
                # Equal, or another thread has just gone on from there.
                if ledger.counter == counter and ledger.sealed != sealed:
                    raise TamperedError(_STATES)
                return ledger
            if found is not None:
                self.digests.open(tenant, counter, sealed)
            if ledger is not None and self._replay(session, tenant, ledger, counter, sealed):
                return ledger
        return self._reload(session, tenant, counter)

    def _replay(self, session: Session, tenant: str, ledger: Ledger, counter: int, sealed: bytes) -> bool:
        """Follow the changes other processes have listed; False if they do not lead to the digest."""
        changes: dict[RowName, Change] = {}
        expected = ledger.counter
        for at, raw in session.execute(_CHANGES, {"tenant": tenant, "after": ledger.counter}):
            if at > counter:
                break
            if at != (expected := expected + 1):
                return False
            try:
                listed = msgspec.msgpack.decode(raw, type=_Listed)
                for table, row_id, before, after in listed:
                    change = self.change(tenant, (table, row_id), before, after)
                    first = changes.get((table, row_id), change)
                    changes[table, row_id] = replace(change, before=first.before, before_tag=first.before_tag)
            except (msgspec.MsgspecError, TypeError, TamperedError):
                return False
        digest = (ledger.digest + _difference(changes)) % MODULUS
        if expected != counter or digest != self.digests.open(tenant, counter, sealed):
            return False
        ledger.advance(counter=counter, sealed=sealed, digest=digest, changes=changes)
        self.cache.forget(tenant, list(changes))
        return True

    def _reload(self, session: Session, tenant: str, counter: int) -> Ledger:
        """Read every row of the tenant."""
        if session.alone:
            loaded = self._load(session, tenant)
        else:
            with self._snapshot() as moment:
                loaded = self._load(moment, tenant)
        with self.lock:
            ledger = self._ledgers.get(tenant)
            if loaded.counter < counter:
                raise TamperedError(_STATES)
            if ledger is None or ledger.counter < loaded.counter:
                self._ledgers[tenant] = ledger = loaded
                self.cache.forget(tenant)
            return ledger

    def _load(self, session: Session, tenant: str, *, whole: bool = False) -> Ledger:
        """Read a tenant's MACs, or its whole rows, and compare their sum with the digest."""
        found = session.execute(_SELECT, {"tenant": tenant}).first()
        counter, sealed = (0, b"") if found is None else tuple(found)
        rows: dict[str, list[tuple[str, int]]] = {}
        for table in self.protected(session):
            tagged = []
            for raw in session.execute(_rows(table, whole=whole), {"tenant": tenant}):
                if whole:
                    check_row(self._keys, tenant, table, raw)
                tagged.append((raw[0], self.digests.tag(tenant, table, raw[0], raw[1])))
            if tagged:
                rows[table] = tagged
        digest = sum(tag for tagged in rows.values() for _, tag in tagged) % MODULUS
        if digest != (self.digests.open(tenant, counter, sealed) if found is not None else 0):
            raise TamperedError("the tenant" if rows else _STATES)
        return Ledger(counter=counter, sealed=sealed, digest=digest, tables=rows)

    def protected(self, session: Session) -> tuple[str, ...]:
        """Every protected table of the schema. A table that was dropped is missed by its rows."""
        self._tables = self._tables or tuple(
            name
            for name, columns in session.tables().items()
            if columns == PROTECTED_COLUMNS and _NAME.fullmatch(name)
        )
        return self._tables

    def _publish(
        self,
        tenant: str,
        *,
        counter: int,
        sealed: bytes,
        digest: int,
        changes: Mapping[RowName, Change],
        rows: Mapping[RowName, AnyRow | None],
    ) -> None:
        """Let this process see what was committed, unless another thread has followed it already."""
        with self.lock:
            ledger = self._ledgers.get(tenant)
            if ledger is not None and ledger.counter == counter - 1:
                ledger.advance(counter=counter, sealed=sealed, digest=digest, changes=changes)
                for name, row in rows.items():
                    self.cache.put(tenant, name, row)
            else:
                self.cache.forget(tenant, list(rows))


@cache
def _rows(table: str, *, whole: bool) -> TextClause:
    columns = "id, mac, version, content, secret" if whole else "id, mac"
    return text(f"SELECT {columns} FROM {table} WHERE tenant = :tenant ORDER BY id")  # noqa: S608 (see `_NAME`)


def _difference(changes: Mapping[RowName, Change]) -> int:
    return sum(change.difference for change in changes.values())
