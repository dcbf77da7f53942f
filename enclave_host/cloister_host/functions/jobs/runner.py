"""Runs jobs: leases what waits, keeps leases alive while it runs, settles how it ended."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from cloister.errors import CloisterError, DeniedError, UnavailableError
from cloister_host.audit import Audit
from cloister_host.audit.damage import LOOKED_AT_AGAIN_SECONDS, report_damage
from cloister_host.functions.invocation import Invocation
from cloister_host.functions.jobs.records import (
    JOBS,
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    Asked,
    JobError,
    JobRecord,
    Jobs,
)
from cloister_host.functions.watch import Watch
from cloister_host.identity.caller import Caller
from cloister_host.identity.records import PRINCIPALS
from cloister_host.store import Row, TamperedError, Tx

__all__ = ["JobRunner"]

log = structlog.get_logger(__name__)

LONGEST_SECONDS: Final = 3600
POLL_SECONDS: Final = 1.0
SLOTS: Final = 4

Begin = Callable[[], AbstractContextManager[Tx]]


@dataclass(slots=True)
class _Run:
    """One job that runs here."""

    row: Row[JobRecord]
    asked: Asked = field(repr=False)
    percent: int = 0
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(on_progress=self._progressed)

    def _progressed(self, percent: int) -> None:
        # Written at the next heartbeat: a function that tells every step must not write as often.
        self.percent = percent

    @property
    def key(self) -> tuple[str, str]:
        return self.row.tenant, self.row.id

    @property
    def caller(self) -> Caller:
        """Whoever started it; every right is asked for again."""
        record = self.row.record
        return Caller(
            tenant=self.row.tenant,
            principal=record.principal,
            kind=record.kind,
            correlation_id=record.correlation_id,
            purpose=record.purpose,
            claims=self.asked.claims,
        )


class _Act:
    """The invocation's transactions; its result is remembered in the job instead of a reply."""

    def __init__(self, begin: Begin, jobs: Jobs, run: _Run) -> None:
        self._begin = begin
        self._jobs = jobs
        self._run = run
        self.length = 0
        self.request_digest: Final = run.row.record.request

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """One transaction."""
        with self._begin() as tx:
            yield tx

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        """Remember the result, unless somebody else runs the job by now or it was cancelled."""
        row = _own(tx, self._run)
        if row is None or row.record.cancel:
            raise UnavailableError("the job is no longer this host's", retryable=False)
        self._jobs.settle(tx, row, "done", result=msgspec.json.encode(result))


class JobRunner:
    """A loop that looks for jobs, and threads that run them.

    Args:
        begin: Opens a transaction.
        jobs: The rows.
        invocation: Runs one.
        audit: Where damage to a row is recorded.
        slots: Jobs that run on this host at once.
        poll_seconds: How often to look for what another host left, and to keep leases alive.
    """

    def __init__(
        self,
        *,
        begin: Begin,
        jobs: Jobs,
        invocation: Invocation,
        audit: Audit,
        slots: int = SLOTS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._begin = begin
        self._jobs = jobs
        self._invocation = invocation
        self._audit = audit
        self._slots = slots
        self._poll_seconds = poll_seconds
        self._running: dict[tuple[str, str], _Run] = {}
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="jobs")
        self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    def close(self) -> None:
        """End what runs: it waits for another host where it may run again, and is lost where not."""
        self._stopping.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()
        for run in self._runs():
            run.watch.cancel()
        self._threads.shutdown()

    def wake(self) -> None:
        """Look now."""
        self._awake.set()

    def tick(self) -> None:
        """Keep leases alive, and start what there is room for."""
        for run in self._runs():
            try:
                self._keep(run)
            except TamperedError as error:
                # Nobody can say any more whether it is wanted.
                run.watch.cancel()
                self._skip(run.row.tenant, run.row.id, error)
        free = self._slots - len(self._runs())
        if free > 0 and not self._stopping.is_set():
            for run in self._lease(free):
                with self._lock:
                    self._running[run.key] = run
                self._threads.submit(self._carry_out, run)

    def drain(self) -> None:
        """Wait for what runs; for tests."""
        while self._runs():
            time.sleep(0.01)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._awake.clear()
            try:
                self.tick()
            except CloisterError as error:
                log.warning("jobs.paused", code=error.code)
            except Exception as error:  # noqa: BLE001 - one bad row must not end every job
                log.error("jobs.failed", error=type(error).__name__)  # noqa: TRY400 - no traceback
            self._awake.wait(self._poll_seconds)

    def _runs(self) -> list[_Run]:
        with self._lock:
            return list(self._running.values())

    def _keep(self, run: _Run) -> None:
        with self._begin() as tx:
            row = _own(tx, run)
            if row is None or row.record.cancel or not tx.is_open(run.row.tenant):
                run.watch.cancel()
            elif run.percent != row.record.percent or row.record.due < self._jobs.now + LEASE_SECONDS // 2:
                run.row = self._jobs.write(
                    tx,
                    row,
                    percent=run.percent,
                    due=self._jobs.now + LEASE_SECONDS,
                    secret=tx.reveal(JOBS, row).reveal(),
                )

    def _lease(self, free: int) -> list[_Run]:
        busy = Counter(run.row.tenant for run in self._runs())
        # One slot is for another tenant, however many jobs the first has.
        share = max(self._slots - 1, 1)
        leased: list[_Run] = []
        with self._begin() as tx:
            found = self._jobs.due(tx, busy.__getitem__, limit=free)
        for tenant, job_id in found:
            room = len(leased) < free and busy[tenant] < share
            try:
                run = self._take(tenant, job_id, room=room)
            except CloisterError as error:
                # What was taken runs all the same.
                log.warning("jobs.paused", code=error.code)
                break
            if run is not None:
                leased.append(run)
                busy[tenant] += 1
        return leased

    def _take(self, tenant: str, job_id: str, *, room: bool) -> _Run | None:
        """Lease a job in a transaction of its own: damage to one holds up no other."""
        try:
            with self._begin() as tx:
                row = self._jobs.look(tx, tenant, job_id)
                if row is None or not self._is_for_running(tx, row) or not room:
                    return None
                asked = msgspec.json.decode(tx.reveal(JOBS, row).reveal(), type=Asked)
                return _Run(self._jobs.lease(tx, row), asked)
        except TamperedError as error:
            self._skip(tenant, job_id, error)
            return None

    def _skip(self, tenant: str, job_id: str, error: TamperedError) -> None:
        with self._begin() as tx:
            self._jobs.postpone(tx, tenant, job_id, seconds=LOOKED_AT_AGAIN_SECONDS)
            report_damage(self._audit, tx, tenant=tenant, act="job.run", row_id=job_id, error=error)

    def _is_for_running(self, tx: Tx, row: Row[JobRecord]) -> bool:
        """Whether a due job is to run now; what else is due is settled or forgotten."""
        record = row.record
        if record.state == "waiting":
            return self._is_wanted(tx, row)
        if record.state != "running":
            self._jobs.forget(tx, row)
            return False
        # Its lease ran out: the host that had it is gone.
        if record.cancel:
            self._jobs.settle(tx, row, "cancelled")
        elif record.repeatable and record.attempts < MAX_ATTEMPTS:
            return self._is_wanted(tx, row)
        else:
            self._jobs.settle(tx, row, "lost")
        return False

    def _is_wanted(self, tx: Tx, row: Row[JobRecord]) -> bool:
        """Whether whoever started a job may still do anything; if not, the job is settled."""
        principal = tx.get(PRINCIPALS, row.tenant, row.record.principal)
        if principal is not None and principal.record.state == "active":
            return True
        why = "the principal that started it is disabled"
        self._jobs.settle(tx, row, "failed", error=JobError(code=DeniedError.code, message=why, hint=""))
        return False

    def _carry_out(self, run: _Run) -> None:
        try:
            try:
                self._invocation.run(
                    run.caller,
                    run.asked.request,
                    _Act(self._begin, self._jobs, run),
                    run.watch,
                    longest_seconds=LONGEST_SECONDS,
                )
            except CloisterError as error:
                self._settle(run, error)
            except Exception as error:  # noqa: BLE001 - the last barrier: nothing of it may leave
                log.error("job.failed", job=run.row.id, error=type(error).__name__)  # noqa: TRY400 - no traceback
                self._settle(run, UnavailableError("the host failed to carry this out", retryable=False))
        except Exception as error:  # noqa: BLE001 - the store is gone; the lease runs out
            log.error("job.unsettled", job=run.row.id, error=type(error).__name__)  # noqa: TRY400 - no traceback
        finally:
            with self._lock:
                self._running.pop(run.key, None)
            self._awake.set()

    def _settle(self, run: _Run, error: CloisterError) -> None:
        with self._begin() as tx:
            row = _own(tx, run)
            if row is None:
                return
            again = isinstance(error, UnavailableError) and error.retryable and not run.watch.ran
            if row.record.cancel:
                self._jobs.settle(tx, row, "cancelled")
            elif self._stopping.is_set() and run.watch.cancelled:
                self._hand_back(tx, row)
            elif again and row.record.attempts < MAX_ATTEMPTS:
                # No worker was free: nothing happened yet.
                self._wait(tx, row, seconds=2**row.record.attempts)
            else:
                why = JobError(code=error.code, message=str(error.args[0]), hint=error.hint)
                self._jobs.settle(tx, row, "failed", error=why)

    def _hand_back(self, tx: Tx, row: Row[JobRecord]) -> None:
        if row.record.repeatable:
            self._wait(tx, row, seconds=0)
        else:
            self._jobs.settle(tx, row, "lost")

    def _wait(self, tx: Tx, row: Row[JobRecord], *, seconds: int) -> None:
        request = tx.reveal(JOBS, row).reveal()
        self._jobs.write(tx, row, state="waiting", due=self._jobs.now + seconds, secret=request)


def _own(tx: Tx, run: _Run) -> Row[JobRecord] | None:
    """The job's row, if this run still has it."""
    row = tx.get(JOBS, run.row.tenant, run.row.id)
    mine = (
        row is not None and row.record.state == "running" and row.record.attempts == run.row.record.attempts
    )
    return row if mine else None
