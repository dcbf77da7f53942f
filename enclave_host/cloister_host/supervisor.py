"""Several processes on one machine behind one socket, and the process that keeps them there.

The supervisor opens the listening socket and nothing else: no key, no store, no evidence. Each worker is a
whole host, started by exec, that accepts from the same socket; they share request keys by the hand-over
between hosts. A worker that dies is replaced, and meanwhile the others accept what it would have.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import structlog

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["MAX_WORKERS", "Place", "Supervisor", "place", "worker_command"]

MAX_WORKERS: Final = 64
VARIABLE: Final = "CLOISTER_HOST_WORKER"
READY_SECONDS: Final = 120.0
MARGIN_SECONDS: Final = 15.0
"""How long after its drain a worker may take to close what it has open, before it is killed."""
FIRST_WAIT_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 30.0
TICK_SECONDS: Final = 0.1

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Worker:
    """One process, in one of the places."""

    number: int
    process: subprocess.Popen[bytes]
    ready: int
    started: float = field(default_factory=time.monotonic)
    is_ready: bool = False

    def close(self) -> None:
        os.close(self.ready)


class Supervisor:
    """Starts workers, replaces those that die, and stops them all.

    Args:
        command: What a worker is started with.
        workers: How many.
        listener: The socket that they share; inheritable.
        drain_seconds: How long a worker may take to stop, from the signal on.
    """

    def __init__(
        self, command: Sequence[str], *, workers: int, listener: socket.socket, drain_seconds: float
    ) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise ConfigurationError(f"--workers must be 1 to {MAX_WORKERS}")
        self._command = list(command)
        self._count = workers
        self._listener = listener
        self._drain_seconds = drain_seconds
        self._workers: dict[int, _Worker] = {}
        self._waits: dict[int, tuple[float, float]] = {}
        self._was_ready = False
        self._stopping = False
        self._replacing = False
        # Its other end closes when this process ends, however it ends: then the workers stop too.
        self._life, self._held = os.pipe()
        os.set_inheritable(self._life, True)  # noqa: FBT003 (the signature of os)

    def run(self) -> None:
        """Run until a signal. SIGHUP replaces the workers one by one; each takes over before the next.

        Raises:
            UnavailableError: The workers do not start; they have said why.
        """
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._replace,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            for number in range(self._count):
                self._start(number)
            while not self._stopping:
                self._look()
                if self._replacing:
                    self._replacing = False
                    self._replace_all()
        finally:
            self._end_all()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._life)
            os.close(self._held)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _replace(self, _signal: int, _frame: FrameType | None) -> None:
        self._replacing = True

    def _start(self, number: int) -> _Worker:
        ready, write = os.pipe()
        listener = self._listener.fileno()
        environment = {**os.environ, VARIABLE: f"{number} {self._count} {listener} {write} {self._life}"}
        try:
            process = subprocess.Popen(  # noqa: S603 (our own program and arguments)
                self._command,
                env=environment,
                pass_fds=(listener, write, self._life),
                start_new_session=True,  # a terminal's Ctrl+C goes to the supervisor alone
            )
        finally:
            os.close(write)
        worker = _Worker(number, process, ready)
        self._workers[number] = worker
        return worker

    def _look(self) -> None:
        """Wait a moment for something to happen, and see to it."""
        waiting = [worker.ready for worker in self._workers.values() if not worker.is_ready]
        if waiting:
            select.select(waiting, [], [], TICK_SECONDS)
        else:
            time.sleep(TICK_SECONDS)
        for worker in list(self._workers.values()):
            self._note_ready(worker)
            if (code := worker.process.poll()) is not None and not self._stopping:
                self._died(worker, code)
        for number in range(self._count):
            if number not in self._workers and not self._stopping:
                until, _ = self._waits.get(number, (0.0, 0.0))
                if time.monotonic() >= until:
                    self._start(number)

    def _note_ready(self, worker: _Worker) -> None:
        if worker.is_ready or not select.select([worker.ready], [], [], 0)[0]:
            return
        worker.is_ready = bool(os.read(worker.ready, 1))
        if worker.is_ready:
            self._was_ready = True
            log.info("worker.ready", worker=worker.number)

    def _died(self, worker: _Worker, code: int) -> None:
        del self._workers[worker.number]
        worker.close()
        if not self._was_ready and not worker.is_ready:
            raise UnavailableError("the workers do not start", hint="they have said why", retryable=False)
        lived = time.monotonic() - worker.started
        _, last = self._waits.get(worker.number, (0.0, 0.0))
        if lived > STEADY_SECONDS or not last:
            wait = FIRST_WAIT_SECONDS
        else:
            wait = min(2 * last, LONGEST_WAIT_SECONDS)
        self._waits[worker.number] = time.monotonic() + wait, wait
        log.warning("worker.died", worker=worker.number, code=code, again_in_seconds=wait)

    def _replace_all(self) -> None:
        """One after the other: a worker stops once the one that takes its place serves."""
        for number in range(self._count):
            old = self._workers.pop(number, None)
            new = self._start(number)
            deadline = time.monotonic() + READY_SECONDS
            while not new.is_ready and new.process.poll() is None and not self._stopping:
                if time.monotonic() > deadline:
                    break
                select.select([new.ready], [], [], TICK_SECONDS)
                self._note_ready(new)
            if old is None:
                continue
            if new.is_ready:
                self._end([old])
            else:
                # What serves goes on serving.
                log.error("worker.not_replaced", worker=number)
                self._end([new])
                self._workers[number] = old
                return

    def _end_all(self) -> None:
        self._listener.close()
        self._end(list(self._workers.values()))
        self._workers.clear()

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds + MARGIN_SECONDS
        for worker in workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("worker.killed", worker=worker.number)  # noqa: TRY400 (no traceback)
                worker.process.kill()
                worker.process.wait()
            worker.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a worker finds when it starts.

    Attributes:
        number: Which of the workers it is.
        workers: How many there are.
        listener: The socket to accept from.
    """

    number: int
    workers: int
    listener: socket.socket
    _ready: int
    _life: int

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        os.write(self._ready, b"r")
        os.close(self._ready)

    def stop_with_supervisor(self) -> None:
        """Stop as by a signal when the supervisor is gone, however it went."""

        def wait() -> None:
            os.read(self._life, 1)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="cloister-supervised", daemon=True).start()


def place() -> Place | None:
    """This process's place among the workers, if it is one. It is taken out of the environment."""
    given = os.environ.pop(VARIABLE, "")
    if not given:
        return None
    number, workers, listener, ready, life = map(int, given.split())
    for inherited in (listener, ready, life):
        os.set_inheritable(inherited, False)  # noqa: FBT003 (the signature of os)
    return Place(
        number=number, workers=workers, listener=socket.socket(fileno=listener), _ready=ready, _life=life
    )


def worker_command(arguments: Sequence[str], *, outbound: str = "") -> list[str]:
    """The command line of a worker: this program, with the arguments of `serve`.

    Args:
        arguments: Of `serve`.
        outbound: The way out of an enclave; the ways in stay with the supervisor.
    """
    way_out = [f"--outbound={outbound}"] if outbound else []
    return [sys.executable, "-m", "cloister_host", *way_out, "serve", *arguments]
