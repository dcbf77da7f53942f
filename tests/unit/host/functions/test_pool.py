"""Which workers are kept warm, with processes that are threads of this one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.function.bundle import Bundle, build_bundle
from cloister_host.functions.frames import Call, Channel, ChannelError, Loaded, Returned, ToWorker
from cloister_host.functions.sandbox import Job
from cloister_host.functions.workers import RESERVE_BYTES, Pool, WorkerKey


class Process:
    """Answers every frame; remembers whether it was ended."""

    pid = 1

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        self.killed = False
        self._thread = threading.Thread(target=self._serve, args=(theirs,))
        self._thread.start()

    def _serve(self, end: socket.socket) -> None:
        channel = Channel(end, ToWorker)
        with end, contextlib.suppress(ChannelError):
            while True:
                frame = channel.receive()
                channel.send(Returned(frame.number, value=True) if isinstance(frame, Call) else Loaded(b""))

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def kill(self) -> None:
        self.killed = True
        # Shut down first: it also wakes the thread that reads the other end.
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self._thread.join()


class Threads:
    """A sandbox that is none."""

    level = "process"
    layers = ()

    def __init__(self) -> None:
        self.started: dict[str, list[Process]] = {}

    def start(self, job: Job) -> Process:
        process = Process()
        self.started.setdefault(job.owner[0], []).append(process)
        return process

    def alive(self) -> dict[str, int]:
        living = {tenant: sum(not p.killed for p in ps) for tenant, ps in self.started.items()}
        return {tenant: number for tenant, number in living.items() if number}

    def close(self) -> None: ...


class Bench:
    """A pool over threads, with as much memory as the test says."""

    def __init__(self, bundle: Bundle, **settings: int) -> None:
        self.sandbox = Threads()
        self.left = 1 << 40
        self.pool = Pool(self.sandbox, available=lambda: self.left, **settings)
        self.bundle = bundle

    def call(self, tenant: str, principal: str = "p") -> None:
        key = WorkerKey(tenant, self.bundle.digest, principal)
        load = lambda: (Job.of(tenant, self.bundle), self.bundle.manifest)  # noqa: E731
        with self.pool.worker(key, load) as worker:
            worker.call({}, None)  # type: ignore[arg-type]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "f.py").write_text(
        "from cloister.function import boolean, function\n"
        '@function("f", output=boolean())\ndef f(x: int) -> bool: return True\n'
    )
    return build_bundle(tmp_path)


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.pool.close()
        assert bench.sandbox.alive() == {}


@pytest.fixture
def make(benches: list[Bench], bundle: Bundle):
    def make(**settings: int) -> Bench:
        benches.append(Bench(bundle, **settings))
        return benches[-1]

    return make


def test_a_worker_serves_again(make) -> None:
    bench = make()
    for _ in range(5):
        bench.call("a")
    assert len(bench.sandbox.started["a"]) == 1


def test_a_worker_is_replaced_after_so_many_calls(make) -> None:
    bench = make(max_calls=3)
    for _ in range(7):
        bench.call("a")
    assert len(bench.sandbox.started["a"]) == 3
    assert bench.sandbox.alive() == {"a": 1}


def test_a_tenant_pushes_out_its_own_workers_first(make) -> None:
    bench = make(max_workers=4)
    bench.call("quiet")
    for number in range(20):
        bench.call("many", f"p{number}")
    assert bench.sandbox.alive() == {"quiet": 1, "many": 3}


def test_without_memory_nothing_is_kept_warm(make) -> None:
    bench = make()
    for tenant in "abc":
        bench.call(tenant)
    assert bench.sandbox.alive() == {"a": 1, "b": 1, "c": 1}
    bench.left = RESERVE_BYTES - 1
    bench.call("d")
    assert bench.sandbox.alive() == {"d": 1}
    # Who is warm is served still.
    bench.call("d")
    assert len(bench.sandbox.started["d"]) == 1


def test_a_worker_that_died_or_spoke_unasked_is_replaced_before_the_call(make) -> None:
    bench = make()
    bench.call("a")
    bench.sandbox.started["a"][0].kill()
    bench.call("a")
    assert len(bench.sandbox.started["a"]) == 2
