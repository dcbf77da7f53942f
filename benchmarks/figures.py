"""How the benchmarks measure, print and keep their figures: medians, beside the peer, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Row", "median_us", "show"]

ROUNDS = 7
ROUND_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure beside its peer; both in the same unit, less is better but for rates, `times` and `%`."""

    what: str
    ours: float
    unit: str = "us"
    peer: str = ""
    theirs: float | None = None
    budget: float | None = None

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s") or self.unit in {"times", "%"}

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.is_rate else self.theirs / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the budget is met, if there is one."""
        if self.budget is None:
            return None
        return self.ours >= self.budget if self.is_rate else self.ours <= self.budget

    def to_json(self) -> dict[str, Any]:
        """The figure with what follows from it."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def median_us(work: Callable[[], object]) -> float:
    """Median over rounds of the mean time of one call, in microseconds."""
    work()
    calls, spent = 0, 0.0
    while spent < ROUND_SECONDS / 10:
        started = time.perf_counter()
        work()
        spent += time.perf_counter() - started
        calls += 1
    count = max(1, int(calls * ROUND_SECONDS / spent))
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(count):
            work()
        rounds.append((time.perf_counter() - started) / count)
    return statistics.median(rounds) * 1e6


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    print(f"\n{title}")
    print(f"  {'what':52} {'ours':>12} {'peer':>12} {'ratio':>8}  {'budget':>10}")
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs:,.1f}"
        ratio = "" if row.ratio is None else f"{row.ratio:,.2f}x"
        budget = "" if row.budget is None else f"{row.budget:,.0f} {'met' if row.met else 'MISSED'}"
        peer = f"  ({row.peer})" if row.peer else ""
        print(f"  {row.what:52} {row.ours:>12,.1f} {theirs:>12} {ratio:>8}  {budget:>10} {row.unit}{peer}")
