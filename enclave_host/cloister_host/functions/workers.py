"""Worker processes as the host sees them: one call at a time, within a deadline, recycled, pooled."""

from __future__ import annotations

import builtins
import hmac
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cloister.errors import CloisterError, FunctionError, LimitError, UnavailableError
from cloister.function.manifest import Manifest
from cloister_host.functions.frames import (
    MAX_DETAIL_CHARS,
    Answer,
    Ask,
    Call,
    Channel,
    ChannelError,
    DeadlineError,
    Failed,
    FromWorker,
    Load,
    Loaded,
    Logged,
    Progressed,
    Refusal,
    Returned,
)
from cloister_host.functions.sandbox import Job, Process, Sandbox
from cloister_host.functions.watch import Watch

__all__ = ["Door", "Pool", "Worker", "WorkerKey"]

MAX_CALLS: Final = 1000
MAX_ASKS: Final = 256
MAX_REMARKS: Final = 10_000
LOAD_SECONDS: Final = 20.0
WAIT_SECONDS: Final = 30.0

# The names a caller may see. Any other class name could be made up to carry data out.
_BUILTIN_ERRORS: Final = frozenset(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
)
_OWN_ERRORS: Final = frozenset(
    {"ConfigurationError", "DeniedError", "FunctionError", "LimitError", "UnavailableError"}
)
_INPUT_ERROR: Final = "ValidationError"


class Door(Protocol):
    """Port: the way out for one invocation."""

    def ask(self, request: Ask, *, deadline: float) -> Answer:
        """Ask a declared origin.

        Raises:
            CloisterError: It was not asked, or gave no usable answer; the function sees code and text.
        """
        ...


class Worker:
    """A loaded function in a process of its own.

    Args:
        process: Just started.
        manifest: What the bundle says.
        check: Whether all of its code is looked at first, and has to declare the same as the manifest, as
            before a deployment; what was found is in `notes`.

    Raises:
        FunctionError: The code does not load, or declares something else.
        LimitError: Loading takes too long.
    """

    def __init__(self, process: Process, manifest: Manifest, *, check: bool = False) -> None:
        self._process = process
        self._manifest = manifest
        self._channel = Channel(process.connection, FromWorker)
        self._names = _BUILTIN_ERRORS | _OWN_ERRORS | frozenset(manifest.errors)
        self.calls = 0
        self.spent = False
        self.notes: list[str] = []
        try:
            self._load(check=check)
        except BaseException:
            self.kill()
            raise

    def call(self, inputs: Mapping[str, Any], door: Door, watch: Watch | None = None) -> Any:
        """Run the function once and return what it says, unchecked.

        Raises:
            FunctionError: It raised, died, was cancelled or spoke out of turn; the worker may be spent.
            LimitError: It took too long or too much memory; the worker is spent.
            UnavailableError: It failed because a declared origin did not answer.
        """
        self.calls += 1
        watch = watch or Watch()
        # Until it has kept to the protocol to the end.
        self.spent = True
        deadline = time.monotonic() + self._manifest.limits.timeout_seconds
        self._process.resume()
        try:
            with watch.running(self._channel.hang_up):
                return self._converse(inputs, door, deadline, watch)
        except DeadlineError:
            self.spent = True
            raise LimitError(
                "the function took too long", hint="raise timeout_seconds in its Limits"
            ) from None
        except ChannelError:
            self.spent = True
            if watch.cancelled:
                raise FunctionError("the function was cancelled") from None
            raise FunctionError(
                "the function's process ended", hint="it crashed or ran out of memory"
            ) from None
        finally:
            self._process.pause()

    @property
    def fit(self) -> bool:
        """Whether it can take a call: alive, and silent since its last answer."""
        return not self.spent and self._channel.is_quiet()

    def retire(self) -> None:
        """Use it for nothing more."""
        self.spent = True

    def kill(self) -> None:
        """End the process."""
        self.spent = True
        self._process.kill()

    def _load(self, *, check: bool) -> None:
        deadline = time.monotonic() + LOAD_SECONDS
        try:
            manifest = self._manifest
            load = Load(
                manifest.entrypoint, dict(manifest.settings), check=check, logs=manifest.logs is not None
            )
            self._channel.send(load, deadline=deadline)
            frame = self._channel.receive(deadline=deadline)
        except DeadlineError:
            raise LimitError("the function took too long to load", hint="do less at import") from None
        except ChannelError:
            raise FunctionError("the function's process ended while it was loaded") from None
        if isinstance(frame, Failed):
            raise FunctionError(
                f"the function cannot be imported: {self._name(frame)}",
                hint="is everything it imports in its folder?",
            )
        # A digest stands for code and manifest: once they have been compared, they stay the same.
        expected = manifest.canonical() if check else b""
        if not isinstance(frame, Loaded) or not hmac.compare_digest(frame.manifest, expected):
            raise FunctionError(
                "the code does not declare what the manifest says",
                hint="build the bundle again from these sources",
            )
        self.notes = [note[:MAX_DETAIL_CHARS] for note in frame.notes]
        self._process.pause()

    def _converse(self, inputs: Mapping[str, Any], door: Door, deadline: float, watch: Watch) -> Any:
        self._channel.send(Call(dict(inputs), watch.debug), deadline=deadline)
        unavailable, asks, remarks = False, 0, 0
        while asks < MAX_ASKS and remarks < MAX_REMARKS:
            frame = self._channel.receive(deadline=deadline)
            if isinstance(frame, Logged):
                remarks += 1
                watch.logged(frame.text)
            elif isinstance(frame, Progressed):
                remarks += 1
                if self._manifest.progress:
                    watch.progressed(frame.percent)
            elif isinstance(frame, Ask):
                asks += 1
                try:
                    answer: Answer | Refusal = door.ask(frame, deadline=deadline)
                except CloisterError as error:
                    unavailable |= isinstance(error, UnavailableError)
                    answer = Refusal(error.code, str(error.args[0]), error.hint)
                self._channel.send(answer, deadline=deadline)
            elif isinstance(frame, Returned):
                self.spent = False
                return frame.value
            elif isinstance(frame, Failed):
                self.spent = frame.error == MemoryError.__name__
                raise self._failure(frame, unavailable=unavailable, debug=watch.debug)
            else:
                break
        raise FunctionError(
            "the function's process does not keep to the protocol or asks origins without end"
        )

    def _failure(self, frame: Failed, *, unavailable: bool, debug: bool) -> CloisterError:
        # The host knows by itself that an origin failed; the function only passes that on.
        if unavailable and frame.error == UnavailableError.__name__:
            return UnavailableError("an origin that the function needs did not answer", hint="retry later")
        if frame.error == MemoryError.__name__:
            return LimitError("the function used too much memory", hint="raise memory_mib in its Limits")
        if frame.error == _INPUT_ERROR:
            return FunctionError("an input is not of its declared type", hint="see the function's manifest")
        if debug and frame.detail:
            return FunctionError(
                f"the function raised {frame.detail[:MAX_DETAIL_CHARS]}",
                hint="debugging is on: function.debug",
            )
        return FunctionError(
            f"the function raised {self._name(frame)}", hint="test it with the same kind of input"
        )

    def _name(self, frame: Failed) -> str:
        return frame.error if frame.error in self._names else "Exception"


@dataclass(frozen=True, slots=True)
class WorkerKey:
    """Whom a worker serves; nobody else ever uses it."""

    tenant: str
    digest: str
    principal: str


@dataclass(slots=True)
class _Idle:
    """Waiting workers, the longest unused first."""

    workers: OrderedDict[int, tuple[WorkerKey, Worker]] = field(default_factory=OrderedDict)

    def take(self, key: WorkerKey) -> list[Worker]:
        """The key's workers up to the first that is fit; what it said unasked is no answer to a call."""
        taken: list[Worker] = []
        for number, (owner, worker) in reversed([*self.workers.items()]):
            if owner == key:
                del self.workers[number]
                taken.append(worker)
                if worker.fit:
                    break
        return taken

    def oldest(self) -> tuple[WorkerKey, Worker] | None:
        return self.workers.popitem(last=False)[1] if self.workers else None


class Pool:
    """Keeps workers warm: as many as fit, the least recently used leaving first.

    Args:
        sandbox: Starts the processes.
        max_workers: Processes of all tenants.
        max_busy_per_tenant: Calls of one tenant at a time; more of them wait, others pass.
        max_waiting_per_tenant: More are refused at once: waiting takes a thread of the server.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        max_workers: int = 64,
        max_busy_per_tenant: int = 12,
        max_waiting_per_tenant: int = 8,
    ) -> None:
        self._sandbox = sandbox
        self._max_workers = max_workers
        self._max_busy = max_busy_per_tenant
        self._max_waiting = max_waiting_per_tenant
        self._changed = threading.Condition()
        self._idle = _Idle()
        self._busy: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
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
        self._enter(key.tenant)
        worker: Worker | None = None
        try:
            worker = self._warm(key)
            if worker is None:
                job, manifest = load()
                worker = Worker(self._sandbox.start(job), manifest, check=check)
            yield worker
        finally:
            self._leave(key, worker)

    def close(self) -> None:
        """End every worker that is not busy, and let busy ones end after their call."""
        with self._changed:
            self._closed = True
            ending = [worker for _, worker in self._idle.workers.values()]
            self._idle.workers.clear()
        for worker in ending:
            worker.kill()
        self._sandbox.close()

    def _enter(self, tenant: str) -> None:
        with self._changed:
            if self._waiting[tenant] >= self._max_waiting:
                raise UnavailableError("too many calls of this tenant are waiting", hint="retry later")
            self._waiting[tenant] += 1
            try:
                free = self._changed.wait_for(
                    lambda: self._closed or self._has_room(tenant), timeout=WAIT_SECONDS
                )
            finally:
                self._waiting -= Counter([tenant])
            if not free or self._closed:
                raise UnavailableError("every worker is busy", hint="retry later")
            self._busy[tenant] += 1

    def _has_room(self, tenant: str) -> bool:
        return self._busy[tenant] < self._max_busy and self._busy.total() < self._max_workers

    def _warm(self, key: WorkerKey) -> Worker | None:
        """A warm worker, or room for a new one."""
        with self._changed:
            taken = self._idle.take(key)
            worker = taken.pop() if taken and taken[-1].fit else None
            full = len(self._idle.workers) + self._busy.total() > self._max_workers
            evicted = self._idle.oldest() if worker is None and full else None
        for unfit in taken:
            unfit.kill()
        if evicted is not None:
            evicted[1].kill()
        return worker

    def _leave(self, key: WorkerKey, worker: Worker | None) -> None:
        keep = worker is not None and not worker.spent and worker.calls < MAX_CALLS
        with self._changed:
            keep = keep and not self._closed
            if worker is not None and keep:
                self._idle.workers[id(worker)] = (key, worker)
            self._busy -= Counter([key.tenant])
            self._changed.notify_all()
        if worker is not None and not keep:
            worker.kill()
