"""What keys and secrets need without anybody asking, in a thread of the host.

Any number of replicas may run it. Each round of a tenant is one transaction that reads, decides and
writes; the store lets one of two through, and the other finds nothing due any more.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import structlog

from cloister.errors import CloisterError
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.identity.records import TENANTS
from cloister_host.store import Tx

__all__ = ["SCHEDULER", "Chore", "Errand", "Scheduler"]

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 30.0
SCHEDULER: Final = "host/scheduler"  # no principal can be called this
_PAGE: Final = 100

Chore = Callable[[Tx, Caller, str], str]
"""Does what is due behind a place in a tenant's rows; tells the place to go on from, empty at the end."""
Errand = Callable[[str], None]
"""Does what is due for a tenant with work outside the store, in transactions of its own."""


class Scheduler:
    """Goes through every tenant's chores, again and again.

    Args:
        begin: Opens a transaction.
        chores: What there is to do.
        errands: What there is to do outside of the store.
        poll_seconds: How long it rests between two rounds, give or take a tenth, so that replicas spread.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[Tx]],
        chores: Sequence[Chore],
        errands: Sequence[Errand] = (),
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._begin = begin
        self._chores = chores
        self._errands = errands
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin with a round now: what came due while no host was up is done first."""
        self._thread.start()

    def close(self) -> None:
        """Finish the transaction in progress and stop."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def round(self) -> None:
        """Do what is due, once. A tenant whose rows are damaged stops nobody else's."""
        for tenant in self._tenants():
            chores: list[Errand] = [partial(self._do, chore) for chore in self._chores]
            for work in (*chores, *self._errands):
                try:
                    work(tenant)
                except CloisterError as error:
                    log.warning("scheduler.paused", code=error.code)
                if self._stopping.is_set():
                    return

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.round()
            except CloisterError as error:
                log.warning("scheduler.paused", code=error.code)
            except Exception as error:  # noqa: BLE001 - one bad round must not end every later one
                log.error("scheduler.failed", error=type(error).__name__)  # noqa: TRY400 - no traceback
            spread = 0.9 + 0.2 * random.random()  # noqa: S311 - spreads replicas, decides nothing
            self._stopping.wait(self._poll_seconds * spread)

    def _do(self, chore: Chore, tenant: str) -> None:
        caller = Caller(
            tenant=tenant, principal=SCHEDULER, kind="service", correlation_id=secrets.token_hex(8)
        )
        place = None
        while place != "":
            with self._begin() as tx:
                place = chore(tx, caller, place or "")

    def _tenants(self) -> Iterator[str]:
        after = None
        while after != "":
            with self._begin() as tx:
                rows = tx.scan(TENANTS, SYSTEM_TENANT, after=after or "", limit=_PAGE)
            yield from (row.id for row in rows if row.record.state == "active" and row.id != SYSTEM_TENANT)
            after = rows[-1].id if len(rows) == _PAGE else ""
