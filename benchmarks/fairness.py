"""What one tenant's flood does to another tenant's calls, through the whole host.

The host has a process of its own, and so has each tenant; the noisy one has a lower priority, because its
clients are not what is measured. Every round measures the quiet tenant alone and beside the noise; the
figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister import Client
from cloister.errors import CloisterError
from cloister_host.embedded import EmbeddedHost, Tenant, embedded_host
from figures import Row

CALLS = 150
ROUNDS = 5
CALLERS = 8
BUDGET = 1.2
SOURCES = {
    "quick": """
from cloister.function import boolean, function

@function("quick", output=boolean())
def quick(age: int) -> bool:
    return age >= 18
""",
    "endless": """
from cloister.function import Limits, boolean, function

@function("endless", output=boolean(), limits=Limits(timeout_seconds=2))
def endless(age: int) -> bool:
    while True:
        pass
""",
}


def quiet() -> None:
    """Client: calls a few milliseconds apart; prints their 50th and 99th percentile, in microseconds."""
    with Client.from_env() as client:
        for _ in sys.stdin:
            times = []
            for _ in range(CALLS):
                started = time.perf_counter()
                client.invoke("quick@prod", age=30)
                times.append((time.perf_counter() - started) * 1e6)
                time.sleep(0.003)
            times.sort()
            print(times[CALLS // 2], times[CALLS * 99 // 100], flush=True)


def noisy(function: str) -> None:
    """Client: as many calls as the host answers, from many threads, until it is killed."""
    os.nice(10)

    def call() -> None:
        with Client.from_env() as client:
            while True:
                try:
                    client.invoke(f"{function}@prod", age=30)
                except CloisterError:
                    time.sleep(0.01)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def client(tenant: Tenant, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """This module as a client in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **tenant.environment("app")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def measured(process: subprocess.Popen[str]) -> tuple[float, float]:
    """A round of the quiet tenant: 50th and 99th percentile."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(file=process.stdin, flush=True)
    median, high = map(float, process.stdout.readline().split())
    return median, high


def tenant(host: EmbeddedHost, folder: Path, name: str) -> Tenant:
    """A tenant with both functions and a principal that may call them."""
    made = host.tenant(name)
    made.principal("app", [("invoke", f"function/{function}") for function in SOURCES])
    for function, source in SOURCES.items():
        place = folder / name / function
        place.mkdir(parents=True)
        (place / f"{function}_function.py").write_text(source)
        made.deploy(place)
    return made


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with embedded_host(folder / "host") as host:
            calm, loud = tenant(host, folder, "quiet"), tenant(host, folder, "noisy")
            figures = []
            with client(calm, "quiet") as caller:
                measured(caller)
                for function, what in (("quick", "a flood of calls"), ("endless", "endless loops")):
                    medians, highs = [], []
                    for _ in range(ROUNDS):
                        alone = measured(caller)
                        with client(loud, "noisy", function):
                            time.sleep(3)
                            beside = measured(caller)
                        medians.append(beside[0] / alone[0])
                        highs.append(beside[1] / alone[1])
                    for percentile, ratios in (("p50", medians), ("p99", highs)):
                        figures.append(
                            Row(
                                what=f"{percentile} beside {what} of another tenant, over alone",
                                unit="ratio",
                                ours=statistics.median(ratios),
                                budget=BUDGET if percentile == "p99" else None,
                            )
                        )
            return figures


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["quiet"]:
            quiet()
        case ["noisy", function]:
            noisy(function)
