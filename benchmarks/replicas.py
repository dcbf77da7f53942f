"""One replica and two over PostgreSQL: what the second adds, and how long clients notice that one was killed.

The machine has as many cores as replicas, and its clients take some. So what a second replica adds is counted
in CPU: where a request costs the hosts as much with two as with one, two on cores of their own do double.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Row, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from cloister import Client
from cloister.envelope import Sealed
from cloister.errors import CloisterError
from support.host_process import Anywhere, HostProcess, client
from support.postgres import cluster

SECONDS = 8.0
CLIENTS = 4
WARM = 30
FAILOVERS = 3
TICKS = os.sysconf("SC_CLK_TCK")


def rows() -> list[Row]:
    """Measure everything."""
    return [*_scaling(), _failover()]


def _scaling() -> Iterator[Row]:
    cpu: dict[int, float] = {}
    for count in (1, 2):
        with _deployment(count) as fleet:
            rate, cpu[count] = _throughput(fleet)
        yield Row(
            what=f"open a value, {count} over PostgreSQL, {CLIENTS} clients", ours=rate, unit="requests/s"
        )
        yield Row(
            what=f"CPU of the hosts for a request, {count} over PostgreSQL", ours=cpu[count] * 1e3, unit="ms"
        )
    yield Row(what="two replicas beside one, CPU counted", ours=2 * cpu[1] / cpu[2], unit="times", budget=1.7)


def _failover() -> Row:
    longest = []
    for _ in range(FAILOVERS):
        with _deployment(2) as fleet:
            longest.append(_gap(fleet))
    return Row(
        what=f"longest gap when a replica is killed, {FAILOVERS} times",
        ours=max(longest) * 1e3,
        unit="ms",
        budget=2000,
    )


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Replicas, and what a client asks them."""

    hosts: list[HostProcess]
    key: str
    sealed: Sealed

    def client(self) -> Client:
        """A client that goes to whichever replica answers."""
        return client(Anywhere(*(host.url for host in self.hosts)), self.key, tenant="acme")

    def cpu_seconds(self) -> float:
        """CPU that all hosts have used."""
        total = 0
        for host in self.hosts:
            fields = Path(f"/proc/{host.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS


@contextmanager
def _deployment(count: int) -> Iterator[Fleet]:
    """So many replicas over a database of their own."""
    with tempfile.TemporaryDirectory() as folder, cluster() as postgresql, ExitStack() as stack:
        database = postgresql.database()
        hosts = [HostProcess(Path(folder), f"host-{n}", database=database) for n in range(count)]
        key = hosts[0].initialize()
        for host in hosts:
            stack.callback(host.stop)
            host.start()
        with client(hosts[0].url, key) as operator:
            admin_key = operator.call("tenant.create", {"tenant": "acme"})["api_key"]
        with client(hosts[0].url, admin_key, tenant="acme") as admin:
            admin.call("key.create", {"key": "k", "purpose": "seal"})
            for action in ("seal", "decrypt"):
                admin.call("grant.create", {"principal": "admin", "action": action, "resource": "key/k"})
            sealed = admin.seal(22, key="k")
        yield Fleet(hosts=hosts, key=admin_key, sealed=sealed)


def _throughput(fleet: Fleet) -> tuple[float, float]:
    """Requests a second, and seconds of CPU of all hosts for each."""
    answered, stop = [0] * CLIENTS, threading.Event()
    warm = threading.Barrier(CLIENTS + 1)

    def run(number: int) -> None:
        with fleet.client() as one:
            for _ in range(WARM):
                one.open(fleet.sealed)
            warm.wait()
            while not stop.is_set():
                one.open(fleet.sealed)
                answered[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    warm.wait()
    cpu, started = fleet.cpu_seconds(), time.perf_counter()
    time.sleep(SECONDS)
    done, seconds, spent = sum(answered), time.perf_counter() - started, fleet.cpu_seconds() - cpu
    stop.set()
    for thread in threads:
        thread.join()
    return done / seconds, spent / done


def _gap(fleet: Fleet) -> float:
    """The longest time between two answers to a client that tries again, while one host is killed."""
    times: list[float] = []
    stop = threading.Event()

    def run() -> None:
        with fleet.client() as one:
            while not stop.is_set():
                try:
                    one.open(fleet.sealed)
                except CloisterError:
                    continue
                times.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    while len(times) < WARM:
        time.sleep(0.01)
    first = len(times)
    fleet.hosts[0].kill()
    time.sleep(5.0)
    stop.set()
    thread.join()
    return max(later - earlier for earlier, later in zip(times[first - 1 :], times[first:], strict=False))


if __name__ == "__main__":
    show("replicas", rows())
