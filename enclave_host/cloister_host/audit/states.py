"""What each tenant's rows were, committed to in the log (PROTOCOL 7).

The counter and a keyed digest of a tenant's state become an entry now and then. So rows that are rolled back
while the log is not are found at the start of a host; and who knows a later head of the log, such as a
witness, knows of the rows as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import structlog

from cloister_host.audit.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.store import Store, TamperedError
from cloister_host.store.anchors import RolledBackError

__all__ = ["COMMITTER", "StateCommitter"]

log = structlog.get_logger(__name__)

COMMIT_SECONDS: Final = 300.0
COMMITTER: Final = "host/states"  # no principal can be called this


class StateCommitter:
    """Commits to the states of tenants, and compares them with what was committed to.

    Args:
        store: The store.
        audit: Its entries.
        monotonic: Seconds that only go forward.
    """

    def __init__(self, store: Store, audit: Audit, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._audit = audit
        self._monotonic = monotonic
        self._next = monotonic() + COMMIT_SECONDS

    def check(self) -> None:
        """Compare every tenant's rows with the last commitment in the log; call it when the store was read.

        An entry that cannot be read is for the log to complain about.

        Raises:
            RolledBackError: Rows are older than the log says, or others.
        """
        for tenant in self._tenants():
            with self._store.begin() as tx:
                try:
                    committed = self._audit.committed_state(tx, tenant)
                except TamperedError:
                    log.error("states.unreadable")  # noqa: TRY400 (no traceback)
                    continue
                counter, digest = tx.state(tenant)
            if committed is None:
                continue
            if counter < committed[0] or (counter == committed[0] and digest != committed[1]):
                raise RolledBackError(
                    "rows of the store are older than its own log says",
                    hint="restore a backup; somebody put old rows back and left the log",
                )

    def commit_due(self) -> None:
        """Commit to what has changed, if it is time."""
        now = self._monotonic()
        if now >= self._next:
            self._next = now + COMMIT_SECONDS
            self.commit()

    def commit(self) -> None:
        """Commit to every state that was not committed to yet."""
        for tenant in self._tenants():
            with self._store.begin() as tx:
                counter, digest = tx.state(tenant)
                committed = self._audit.committed_state(tx, tenant)
                if committed is None or committed[0] < counter:
                    caller = Caller(
                        tenant=tenant,
                        principal=COMMITTER,
                        kind="service",
                        correlation_id=secrets.token_hex(8),
                    )
                    self._audit.commit_state(tx, caller, counter=counter, digest=digest)

    def _tenants(self) -> list[str]:
        return sorted(filter(None, self._store.counters()))
