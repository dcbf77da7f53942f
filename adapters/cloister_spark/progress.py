"""How far a job is: counters that executors add to and the driver reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = ["Accumulators", "NoMeter", "Progress"]

COUNTERS: Final = ("rows", "failed", "calls", "waits", "attested")


class Accumulators:
    """The executors' side: Spark brings what is added here to the driver when a task ends."""

    def __init__(self, counters: dict[str, Any]) -> None:
        self._counters = counters

    def add(self, **counts: int) -> None:
        """Add to counters by name."""
        for name, count in counts.items():
            if count:
                self._counters[name].add(count)


class NoMeter:
    """Counts nothing: Spark Connect has no accumulators."""

    def add(self, **counts: int) -> None:
        """Nothing."""


class Progress:
    """What executors have done so far. Spark counts a task that it ran twice twice.

    Attributes:
        rows: Rows worked on.
        failed: Rows that have an error.
        calls: Requests answered by the host.
        waits: Times that an outage was waited out.
        attested: Executor processes that appraised the host.
    """

    rows: int
    failed: int
    calls: int
    waits: int
    attested: int

    def __init__(self) -> None:
        self._counters: dict[str, Any] = {}

    def meter(self, context: SparkContext | None) -> Accumulators | NoMeter:
        """What goes to the executors."""
        if context is None:
            return NoMeter()
        if not self._counters:
            self._counters.update({name: context.accumulator(0) for name in COUNTERS})
        return Accumulators(self._counters)

    def __getattr__(self, name: str) -> int:
        if name not in COUNTERS:
            raise AttributeError(name)
        counter = self._counters.get(name)
        return 0 if counter is None else int(counter.value)

    def __repr__(self) -> str:
        return f"Progress({', '.join(f'{name}={getattr(self, name)}' for name in COUNTERS)})"
