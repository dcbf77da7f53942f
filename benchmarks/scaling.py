"""From what one operation costs here to a million a second: a plan by arithmetic, waiting by simulation.

    python benchmarks/scaling.py            # the tables of docs/scaling.md

An invocation passes three stations: a core of a host, a core of PostgreSQL, and the state row of its tenant,
which whoever commits holds until the commit is on the disk. A *cell* is one deployment: replicas over one
PostgreSQL. Beyond a cell there are more of them, with tenants divided among them; nothing is shared.
"""

from __future__ import annotations

import math
import random
import statistics
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import simpy

PRICES: Final = Path(__file__).with_name("prices.toml")
HOURS_A_MONTH: Final = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one operation takes at each station, in seconds.

    Attributes:
        host: CPU of the host and its sandbox.
        database: CPU of PostgreSQL.
        lock: How long the tenant's state row is held; 0 for what is not bound by it.
    """

    host: float
    database: float
    lock: float


# By `benchmarks/capacity.py` on two shared cores of an AMD EPYC under load; `lock` is not measured there: two
# milliseconds are a durable commit on a managed PostgreSQL with a standby in another zone.
INVOCATION: Final = Costs(host=0.0155, database=0.0053, lock=0.002)
ROW: Final = Costs(host=22e-6, database=1.2e-6, lock=0.002 / 10_000)

MACHINE_CORES: Final = 16
LARGEST_DATABASE_CORES: Final = 64
HOST_LOAD: Final = 0.7
DATABASE_LOAD: Final = 0.6
LOCK_LOAD: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rate needs.

    Attributes:
        rate: Operations a second.
        host_cores: Over all cells.
        database_cores: Over all cells.
        cells: Deployments with a PostgreSQL each.
        tenants: At least so many, evenly busy, or the state row of one is the limit.
        bottleneck: What stood in the way last, and was multiplied to get here.
    """

    rate: float
    host_cores: int
    database_cores: int
    cells: int
    tenants: int
    bottleneck: str


def plan(rate: float, costs: Costs) -> Plan:
    """Size everything for a rate, at the loads above."""
    host_cores = max(1, math.ceil(rate * costs.host / HOST_LOAD))
    database = max(1, math.ceil(rate * costs.database / DATABASE_LOAD))
    cells = math.ceil(database / LARGEST_DATABASE_CORES)
    tenants = max(1, math.ceil(rate * costs.lock / LOCK_LOAD))
    reached = {
        "one Python process": host_cores > 1,
        "one machine": host_cores > MACHINE_CORES,
        "one tenant's state row": tenants > 1,
        "one PostgreSQL": cells > 1,
    }
    bottleneck = next((name for name in reversed(reached) if reached[name]), "nothing yet")
    return Plan(
        rate=rate,
        host_cores=host_cores,
        database_cores=database,
        cells=cells,
        tenants=tenants,
        bottleneck=bottleneck,
    )


def dollars_a_month(needed: Plan, cloud: dict[str, Any]) -> float:
    """What the cores of a plan cost at list price; no network, storage or load balancer."""
    hourly = needed.host_cores * cloud["host"] + needed.database_cores * cloud["database"]
    return float(hourly * HOURS_A_MONTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How long operations took in a simulation, in seconds, and how busy the stations were."""

    mean: float
    p50: float
    p99: float
    host_load: float
    database_load: float


def simulate(
    costs: Costs,
    *,
    rate: float,
    host_cores: int,
    database_cores: int,
    tenants: int,
    operations: int = 10_000,
    seed: int = 1,
) -> Waiting:
    """Run a cell: Poisson arrivals, exponential service, first come first served. A tenth runs it in."""
    draw = random.Random(seed)
    environment = simpy.Environment()
    host = simpy.Resource(environment, host_cores)
    database = simpy.Resource(environment, database_cores)
    rows = [simpy.Resource(environment, 1) for _ in range(tenants)]
    took: list[float] = []
    busy = {"host": 0.0, "database": 0.0}

    def serve(station: simpy.Resource, mean: float, name: str) -> Iterator[Any]:
        with station.request() as turn:
            yield turn
            seconds = draw.expovariate(1 / mean)
            busy[name] += seconds
            yield environment.timeout(seconds)

    def operation() -> Iterator[Any]:
        arrived = environment.now
        yield from serve(host, costs.host, "host")
        if costs.database:
            yield from serve(database, costs.database, "database")
        if costs.lock:
            with draw.choice(rows).request() as turn:
                yield turn
                yield environment.timeout(draw.expovariate(1 / costs.lock))
        took.append(environment.now - arrived)

    def arrivals() -> Iterator[Any]:
        for _ in range(operations):
            environment.process(operation())
            yield environment.timeout(draw.expovariate(rate))

    environment.process(arrivals())
    environment.run()
    settled = sorted(took[operations // 10 :])
    return Waiting(
        mean=statistics.fmean(settled),
        p50=settled[len(settled) // 2],
        p99=settled[len(settled) * 99 // 100],
        host_load=busy["host"] / environment.now / host_cores,
        database_load=busy["database"] / environment.now / database_cores,
    )


def mean_in_mmc(*, rate: float, service: float, servers: int) -> float:
    """Mean time in an M/M/c queue, wait and service (Erlang C): what the simulation is held against.

    Raises:
        ValueError: The queue grows without end.
    """
    offered = rate * service
    if offered >= servers:
        raise ValueError("more arrives than can be served")
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    waits = blocked / (1 - offered / servers * (1 - blocked))
    return service + waits * service / (servers - offered)


RATES: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
SIMULATED: Final = (10, 100, 1_000, 5_000)


def tables() -> str:
    """The tables of `docs/scaling.md`, as they stand there."""
    prices = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    lines = []
    for title, costs in (
        ("Single invocations a second", INVOCATION),
        ("Rows a second, in batches of 10,000", ROW),
    ):
        clouds = " | ".join(f"{cloud} $/month" for cloud in prices)
        lines += [
            f"### {title}",
            "",
            f"| rate | host cores | PostgreSQL cores | cells | tenants | last limit | {clouds} |",
        ]
        lines += ["|---:|---:|---:|---:|---:|---|" + "---:|" * len(prices)]
        for rate in RATES:
            needed = plan(rate, costs)
            money = " | ".join(f"{dollars_a_month(needed, cloud):,.0f}" for cloud in prices.values())
            lines.append(
                f"| {rate:,} | {needed.host_cores:,} | {needed.database_cores:,} | {needed.cells:,} "
                f"| {needed.tenants:,} | {needed.bottleneck} | {money} |"
            )
        lines.append("")
    lines += [
        "### Time of an invocation in one cell",
        "",
        "| rate | p50 | p99 | hosts busy | PostgreSQL busy |",
    ]
    lines.append("|---:|---:|---:|---:|---:|")
    for rate in SIMULATED:
        needed = plan(rate, INVOCATION)
        found = simulate(
            INVOCATION,
            rate=rate,
            host_cores=needed.host_cores,
            database_cores=needed.database_cores,
            tenants=needed.tenants,
        )
        lines.append(
            f"| {rate:,} | {found.p50 * 1e3:.0f} ms | {found.p99 * 1e3:.0f} ms "
            f"| {found.host_load:.0%} | {found.database_load:.0%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables())
