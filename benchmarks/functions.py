"""The sandbox of confidential functions: what it adds to a call, and who notices whom.

Inside one process, without HTTP, store and cryptography, which `invocation` has.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloister.errors import CloisterError
from cloister.function.bundle import Bundle, build_bundle
from cloister_host.functions.frames import Answer, Ask
from cloister_host.functions.sandbox import Job
from cloister_host.functions.sandbox.namespaces import NamespaceSandbox
from cloister_host.functions.workers import Pool, WorkerKey
from figures import Row

CALLS = 1500
RUNS = 5
COLD = 30
ROWS = 10_000
NUMBERS = [f"{n:03}-{n % 99:02}-{n:04}"[-11:] for n in range(ROWS)]
TENANTS, FUNCTIONS = 200, 5
BREACH = Path(__file__).parents[1] / "examples" / "ssn_breach_check" / "function"
SOURCES = {
    "quick": """
from cloister.function import Limits, boolean, function

@function("quick", output=boolean())
def quick(age: int) -> bool:
    return age >= 18
""",
    "endless": """
from cloister.function import Limits, boolean, function

@function("endless", output=boolean(), limits=Limits(timeout_seconds=30))
def endless(age: int) -> bool:
    while True:
        pass
""",
    "busy": """
from cloister.function import boolean, function

@function("busy", output=boolean())
def busy(age: int) -> bool:
    return sum(range(age)) > 0
""",
    "numeric": """
import numpy
from cloister.function import boolean, function

@function("numeric", output=boolean())
def numeric(age: int) -> bool:
    return bool(numpy.arange(age).sum() > 0)
""",
}


def built(folder: Path, source: str) -> Bundle:
    """A bundle of one file."""
    folder.mkdir()
    (folder / f"{folder.name}.py").write_text(source)
    return build_bundle(folder)


class Closed:
    """A door that leads nowhere."""

    def ask(self, request: Ask, *, deadline: float) -> Answer:  # noqa: ARG002 - a port
        """Refuse."""
        raise CloisterError("closed")


class List:
    """A partner with a short list of breached numbers."""

    def ask(self, request: Ask, *, deadline: float) -> Answer:  # noqa: ARG002 - a port
        """Give the one page there is."""
        body = json.dumps({"page": 1, "pages": 1, "items": [f"{n:09}" for n in range(1000)]})
        return Answer(200, {"content-type": "application/json"}, body.encode())


class Bench:
    """A pool over the real sandbox, and functions to call."""

    def __init__(self, folder: Path) -> None:
        self.pool = Pool(NamespaceSandbox(), max_busy_per_tenant=64)
        self.bundles = {name: built(folder / name, source) for name, source in SOURCES.items()}
        self.breach = build_bundle(BREACH, {"BREACH_API": "https://partner.example"})

    def check_breaches(self) -> Any:
        """The example's check of many numbers, opened already."""
        bundle = self.breach
        key = WorkerKey("a", bundle.digest, "p")
        with self.pool.worker(key, lambda: (Job.of("a", bundle), bundle.manifest)) as worker:
            return worker.call({"ssn": NUMBERS}, List())

    def call(self, name: str, tenant: str = "a", principal: str = "p", **inputs: Any) -> Any:
        """Call one of the functions."""
        bundle = self.bundles[name]
        key = WorkerKey(tenant, bundle.digest, principal)
        with self.pool.worker(key, lambda: (Job.of(tenant, bundle), bundle.manifest)) as worker:
            return worker.call(inputs or {"age": 30}, Closed())


def timed(work: Callable[[], object], calls: int) -> list[float]:
    """Microseconds of each call, sorted."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e6)
    return sorted(times)


def p99(times: list[float]) -> float:
    return times[len(times) * 99 // 100]


@contextmanager
def disturbed(bench: Bench, name: str, threads: int) -> Iterator[None]:
    """Another tenant calls a function from many threads as fast as it can."""
    over = threading.Event()

    def disturb(number: int) -> None:
        while not over.is_set():
            try:
                bench.call(name, "noisy", f"p{number}")
            except CloisterError:
                over.wait(0.01)

    running = [threading.Thread(target=disturb, args=(n,), daemon=True) for n in range(threads)]
    for thread in running:
        thread.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        over.set()
        if name != "endless":
            for thread in running:
                thread.join()


def paced(bench: Bench) -> list[float]:
    """Calls of a quiet tenant, a few milliseconds apart."""

    def call() -> None:
        bench.call("quick", "quiet")

    times = []
    for _ in range(CALLS // 5):
        times += timed(call, 1)
        time.sleep(0.002)
    return sorted(times)


def fairness(bench: Bench, name: str, threads: int) -> float:
    """How many times longer the quiet tenant's p99 is beside the noisy one: median of runs."""
    ratios = []
    for _ in range(RUNS):
        alone = p99(paced(bench))
        with disturbed(bench, name, threads):
            beside = p99(paced(bench))
        ratios.append(beside / alone)
    return statistics.median(ratios)


def cold(bench: Bench, name: str) -> float:
    """Median microseconds of the first call of a worker."""
    fresh = iter(range(10_000))
    return statistics.median(timed(lambda: bench.call(name, "cold", f"{name}{next(fresh)}"), COLD))


def speed_up(bench: Bench) -> float:
    """Calls a second of two worker processes over those of one."""

    def rate(callers: int) -> float:
        def run(number: int) -> None:
            for _ in range(25):
                bench.call("busy", f"t{number}", age=300_000)

        for number in range(callers):
            bench.call("busy", f"t{number}", age=1)
        threads = [threading.Thread(target=run, args=(n,)) for n in range(callers)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 25 * callers / (time.perf_counter() - started)

    return statistics.median(rate(2) / rate(1) for _ in range(RUNS))


def pss_mib(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(text.partition("\nPss:")[2].split()[0])
    return total / 1024


def descendants(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return [pid, *(found for child in children for found in descendants(child))]


def crowd(folder: Path) -> tuple[float, int]:
    """Memory of a host process with every function of every tenant called once; how many stay warm."""
    bench = Bench(folder)
    source = SOURCES["quick"]
    try:
        for number in range(FUNCTIONS):
            named = source.replace("quick", f"quick{number}")
            bench.bundles[f"quick{number}"] = built(folder / f"quick{number}", named)
        for tenant in range(TENANTS):
            for number in range(FUNCTIONS):
                bench.call(f"quick{number}", f"tenant{tenant}")
        pids = descendants(os.getpid())
        return pss_mib(pids), len(pids) - 3
    finally:
        bench.pool.close()


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "crowd").mkdir()
        mib, warm = crowd(folder / "crowd")
        (folder / "bench").mkdir()
        bench = Bench(folder / "bench")
        try:
            for _ in range(50):
                bench.call("quick")
            added = timed(lambda: bench.call("quick"), CALLS)
            figures = [
                Row(what="sandbox added to a warm call, p50", ours=statistics.median(added), budget=300),
                Row(what="sandbox added to a warm call, p99", ours=p99(added), budget=1500),
                Row(what="cold start, p50", ours=cold(bench, "quick"), budget=30_000),
                Row(what="cold start with NumPy, p50", ours=cold(bench, "numeric"), budget=30_000),
                Row(
                    what=f"breach check over {ROWS:,} rows, opened already",
                    unit="rows/s",
                    ours=ROWS / statistics.median(timed(bench.check_breaches, 9)) * 1e6,
                    budget=100_000,
                ),
                Row(what="two worker processes over one", unit="times", ours=speed_up(bench), budget=1.7),
                Row(
                    what="p99 beside endless calls of another tenant, over alone",
                    unit="ratio",
                    ours=fairness(bench, "endless", 6),
                    budget=1.2,
                ),
            ]
        finally:
            bench.pool.close()
        (folder / "flood").mkdir()
        bench = Bench(folder / "flood")
        try:
            flood = fairness(bench, "busy", 6)
        finally:
            bench.pool.close()
        return [
            *figures,
            Row(
                what="p99 beside a flood of another tenant, over alone", unit="ratio", ours=flood, budget=1.2
            ),
            Row(
                what=f"{TENANTS} tenants with {FUNCTIONS} functions, PSS; {warm} stay warm",
                unit="MiB",
                ours=mib,
                budget=1536,
            ),
        ]
