"""The door to the store: transactions over protected rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from cloister.errors import UnavailableError
from cloister_host.store.blobs import Blobs
from cloister_host.store.database import Database, Reading
from cloister_host.store.rows import RowKeys
from cloister_host.store.state import States
from cloister_host.store.tx import Tx

__all__ = ["Store", "SupersededError"]


class SupersededError(UnavailableError):
    """The deployment was restored elsewhere, and lives there now."""

    retryable = False

    def __init__(self) -> None:
        super().__init__(
            "this deployment was restored elsewhere: the anchor belongs to another incarnation",
            hint="stop this host, or take over with `cloister host anchor --accept-this-store`",
        )


class Store:
    """What the host remembers, authenticated and encrypted under keys of the root.

    Args:
        database: The database, or its URL.
        row_keys: From `RootKey.row_keys()`.
    """

    def __init__(self, database: Database | str, row_keys: RowKeys) -> None:
        self._database = Database(database) if isinstance(database, str) else database
        self._keys = row_keys
        self._blobs = Blobs(row_keys)
        self._states = States(row_keys, self._database.snapshot)
        self._superseded = False

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`, as the attested configuration names it."""
        return self._database.kind

    @property
    def deployment(self) -> str:
        """Name of the deployment whose rows these are."""
        return self._keys.deployment

    def migrate(self) -> None:
        """Bring the schema up to date (see `Database.migrate`)."""
        self._database.migrate()

    @contextmanager
    def begin(self, *, alone: bool = False) -> Iterator[Tx]:
        """One write transaction.

        An exception undoes it all; then what was registered with `Tx.on_rollback` is done in a
        transaction of its own. If that fails, its error is raised instead: a refusal that cannot be
        recorded must not pass for one that was.

        Args:
            alone: Wait until no other replica is in such a transaction (see `Database.begin`).

        Raises:
            ConflictError: Another transaction was faster; everything here is undone and may be done again.
            TamperedError: The database holds something else than the host wrote.
            SupersededError: The deployment was restored elsewhere.
            UnavailableError: The database cannot be reached, is busy, or undid the transaction.
        """
        if self._superseded:
            raise SupersededError
        tx: Tx | None = None
        try:
            with self._database.begin(alone=alone) as session:
                tx = Tx(session, self._keys, self._blobs, self._states)
                yield tx
                tx.write_states()
        except BaseException:
            if tx is not None and tx.rollback_actions:
                with self._database.begin() as session:
                    aftermath = Tx(session, self._keys, self._blobs, self._states)
                    for action in tx.rollback_actions:
                        action(aftermath)
                    aftermath.write_states()
                _run(aftermath.commit_actions)
            raise
        _run(tx.commit_actions)

    def verify(self) -> Mapping[str, int]:
        """Read every protected row of every tenant and compare; gives each tenant's counter.

        Raises:
            TamperedError: Rows were changed, deleted, put in or brought back, or there are none at all.
            UnavailableError: The database cannot be reached.
        """
        with self._database.snapshot() as session:
            return self._states.verify(session)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """One moment of the database as it is, unchecked; see `Database.reading`."""
        with self._database.reading() as reading:
            yield reading

    def supersede(self) -> None:
        """Begin no transaction any more: the deployment was restored elsewhere, and lives there."""
        self._superseded = True

    def forget_rows(self) -> None:
        """Read every row from the database again when it is next asked for, and compare it."""
        self._states.cache.clear()

    def counters(self) -> Mapping[str, int]:
        """The highest counter of each tenant that this process has seen."""
        return self._states.counters()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()


def _run(actions: Sequence[Callable[[], object]]) -> None:
    for action in actions:
        action()
