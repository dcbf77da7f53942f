"""Keeps workers warm: as many as fit, those that were not used for long leaving first."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cloister.function.manifest import Manifest
from cloister_host.fairness import aside
from cloister_host.functions.admission import Admission
from cloister_host.functions.memory import available_bytes
from cloister_host.functions.sandbox import Job, Sandbox
from cloister_host.functions.turns import Schedule, Turns
from cloister_host.functions.worker import Worker

__all__ = ["Pool", "WorkerKey"]

MAX_CALLS: Final = 1000
MAX_WORKERS: Final = 320
RESERVE_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class WorkerKey:
    """Whom a worker serves; nobody else ever uses it."""

    tenant: str
    digest: str
    principal: str


@dataclass(slots=True)
class _Idle:
    """Waiting workers by tenant, the longest unused first."""

    tenants: dict[str, OrderedDict[int, tuple[WorkerKey, Worker]]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __len__(self) -> int:
        return sum(map(len, self.tenants.values()))

    def put(self, key: WorkerKey, worker: Worker) -> None:
        self.tenants.setdefault(key.tenant, OrderedDict())[next(self.numbers)] = (key, worker)

    def take(self, key: WorkerKey) -> list[Worker]:
        """The key's workers up to the first that is fit; what it said unasked is no answer to a call."""
        taken: list[Worker] = []
        mine = self.tenants.get(key.tenant, OrderedDict())
        for number, (owner, worker) in reversed([*mine.items()]):
            if owner == key:
                self._remove(key.tenant, number)
                taken.append(worker)
                if worker.fit:
                    break
        return taken

    def evict(self) -> Worker | None:
        """The longest unused of the tenant with most of them: a tenant pushes out its own first."""
        if not self.tenants:
            return None
        tenant = min(
            self.tenants, key=lambda name: (-len(self.tenants[name]), next(iter(self.tenants[name])))
        )
        number, (_, worker) = next(iter(self.tenants[tenant].items()))
        self._remove(tenant, number)
        return worker

    def _remove(self, tenant: str, number: int) -> None:
        del self.tenants[tenant][number]
        if not self.tenants[tenant]:
            del self.tenants[tenant]


class Pool:
    """Lends workers for calls.

    Args:
        sandbox: Starts the processes.
        max_workers: Processes of all tenants, busy and warm.
        max_busy_per_tenant: Calls of one tenant at a time; more of them wait, others pass.
        max_waiting_per_tenant: More are refused at once: waiting takes a thread of the server.
        max_calls: Calls after which a worker is replaced.
        cores: Calls that compute at a time; by default as many as this process may use.
        available: Bytes of memory that are left. While they are fewer than the reserve, warm workers end.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        max_workers: int = MAX_WORKERS,
        max_busy_per_tenant: int = 12,
        max_waiting_per_tenant: int = 8,
        max_calls: int = MAX_CALLS,
        cores: int | None = None,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._sandbox = sandbox
        self._max_workers = max_workers
        self._max_calls = max_calls
        self._available = available
        self._admission = Admission(
            max_busy=max_workers,
            max_busy_per_tenant=max_busy_per_tenant,
            max_waiting_per_tenant=max_waiting_per_tenant,
        )
        self._turns = Turns(Schedule(cores=cores or len(os.sched_getaffinity(0))))
        self._lock = threading.Lock()
        self._idle = _Idle()
        self._closed = False

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox that the workers run in."""
        return self._sandbox

    @contextmanager
    def worker(
        self, key: WorkerKey, load: Callable[[], tuple[Job, Manifest]], *, check: bool = False
    ) -> Iterator[Worker]:
        """Lend a worker for one call; `load` is asked for the code if none is warm; deployments `check`.

        Raises:
            UnavailableError: All are busy for too long, or no process can be started.
            FunctionError: The code does not load.
        """
        with aside(), self._admission.of(key.tenant):
            worker = self._warm(key)
            if worker is None:
                job, manifest = load()
                worker = Worker(
                    self._sandbox.start(job), manifest, tenant=key.tenant, turns=self._turns, check=check
                )
            try:
                yield worker
            finally:
                self._put_back(key, worker)

    def close(self) -> None:
        """End every worker that is not busy, and let busy ones end after their call."""
        with self._lock:
            self._closed = True
        self._admission.close()
        self._evict(lambda: True)
        self._turns.close()
        self._sandbox.close()

    def _warm(self, key: WorkerKey) -> Worker | None:
        """A warm worker, or room for a new one."""
        with self._lock:
            taken = self._idle.take(key)
        worker = taken.pop() if taken and taken[-1].fit else None
        for unfit in taken:
            unfit.kill()
        if worker is None:
            self._evict(lambda: len(self._idle) + self._admission.busy > self._max_workers)
            self._evict(lambda: self._available() < RESERVE_BYTES)
        return worker

    def _evict(self, more: Callable[[], bool]) -> None:
        """End warm workers while there are any and it is needed."""
        while more():
            with self._lock:
                evicted = self._idle.evict()
            if evicted is None:
                return
            evicted.kill()

    def _put_back(self, key: WorkerKey, worker: Worker) -> None:
        with self._lock:
            keep = not worker.spent and worker.calls < self._max_calls and not self._closed
            if keep:
                self._idle.put(key, worker)
        if not keep:
            worker.kill()
