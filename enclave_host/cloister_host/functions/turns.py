"""Whose turn it is on the processor: calls of all tenants share its cores, whatever any of them does.

A worker runs only while it has a turn; otherwise the kernel has stopped it. So a tenant that computes
without end takes what nobody else wants, and is stopped for whoever comes with a short call. `Schedule`
decides and does nothing else; `Turns` carries it out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = ["Schedule", "Stoppable", "Turn", "Turns"]

SLICE_SECONDS: Final = 0.01
_REMEMBERED: Final = 1024


class Stoppable(Protocol):
    """Port: a process that can be stopped."""

    def pause(self) -> None:
        """Stop it."""
        ...

    def resume(self) -> None:
        """Let it run on."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Turn:
    """One call that wants to compute.

    Attributes:
        tenant: Whose call it is.
        process: What runs it.
        used: Seconds that it has run, over all its stints.
        stint: Seconds of the one it is in.
    """

    tenant: str
    process: Stoppable = field(repr=False)
    used: float = 0.0
    stint: float = 0.0


class Schedule:
    """Decides which calls run; without a clock, threads or processes.

    Tenants share by time, not by calls: the next turn is that of the tenant which runs least and has used
    least. A call that has had its slice gives way to any tenant that has used less; one of a tenant that
    holds two cores more than another gives way at once.

    Args:
        cores: Calls that run at a time.
        slice_seconds: What a call may use before it has to give way.
    """

    def __init__(self, *, cores: int, slice_seconds: float = SLICE_SECONDS) -> None:
        self._cores = cores
        self._slice = slice_seconds
        self._running: list[Turn] = []
        self._waiting: list[Turn] = []
        self._spent: dict[str, float] = {}
        self._accounted = 0.0

    def begin(self, turn: Turn) -> None:
        """Let a call wait for its turn; `arrange` follows."""
        active = {other.tenant for other in (*self._running, *self._waiting)}
        if turn.tenant not in active:
            # Whoever was away has saved up a slice and no more: enough for a short call.
            least = min((self._spent[tenant] for tenant in active), default=0.0) - self._slice
            self._spent[turn.tenant] = max(self._spent.get(turn.tenant, least), least)
            if len(self._spent) > _REMEMBERED:
                self._spent = {tenant: self._spent[tenant] for tenant in (*active, turn.tenant)}
        turn.stint = 0.0
        self._waiting.append(turn)

    def end(self, turn: Turn, now: float) -> None:
        """A call computes no more; `arrange` follows."""
        self._account(now)
        (self._running if turn in self._running else self._waiting).remove(turn)

    def arrange(self, now: float) -> tuple[list[Turn], list[Turn]]:
        """Decide anew; returns whom to stop and whom to let run."""
        self._account(now)
        before = list(self._running)
        while self._waiting:
            candidate = min(self._waiting, key=self._precedence)
            if len(self._running) >= self._cores:
                victim = self._victim(candidate)
                if victim is None:
                    break
                self._running.remove(victim)
                self._waiting.append(victim)
            self._waiting.remove(candidate)
            candidate.stint = 0.0
            self._running.append(candidate)
        stopped = [turn for turn in before if turn not in self._running]
        return stopped, [turn for turn in self._running if turn not in before]

    def next_look(self) -> float | None:
        """Seconds until a running call has had its slice, if anyone waits for that."""
        if not self._waiting:
            return None
        return min(max(self._slice - turn.stint, self._slice / 10) for turn in self._running)

    def _account(self, now: float) -> None:
        elapsed, self._accounted = now - self._accounted, now
        for turn in self._running:
            turn.used += elapsed
            turn.stint += elapsed
            self._spent[turn.tenant] += elapsed

    def _precedence(self, turn: Turn) -> tuple[int, float, bool]:
        """Small goes first; among equals the one that has waited longest."""
        return self._holds(turn.tenant), self._spent[turn.tenant], turn.used >= self._slice

    def _holds(self, tenant: str) -> int:
        return sum(turn.tenant == tenant for turn in self._running)

    def _victim(self, candidate: Turn) -> Turn | None:
        yielding = [turn for turn in self._running if self._yields(turn, candidate)]
        return max(
            yielding,
            key=lambda turn: (self._holds(turn.tenant), self._spent[turn.tenant], turn.stint),
            default=None,
        )

    def _yields(self, turn: Turn, candidate: Turn) -> bool:
        over = turn.stint >= self._slice
        if turn.tenant == candidate.tenant:
            return over
        held, wanted = self._holds(turn.tenant), self._holds(candidate.tenant)
        if held > wanted + 1:
            return True
        # Strictly less, or it could be its turn again at once.
        ahead = self._spent[turn.tenant] - self._spent[candidate.tenant]
        return held > wanted and ((ahead > 0 and turn.used >= self._slice) or (ahead == 0 and over))


class Turns:
    """Carries a schedule out: stops and resumes processes, from whichever thread learns of a change.

    Args:
        schedule: Decides.
        clock: Monotonic seconds.
    """

    def __init__(self, schedule: Schedule, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._schedule = schedule
        self._clock = clock
        self._changed = threading.Condition()
        self._timer: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def taken(self, tenant: str, process: Stoppable) -> Iterator[Turn]:
        """Within, the process runs whenever it is its turn; afterwards it is stopped."""
        turn = Turn(tenant=tenant, process=process)
        self._begin(turn)
        try:
            yield turn
        finally:
            self._end(turn)

    @contextmanager
    def given_up(self, turn: Turn) -> Iterator[None]:
        """Within, the process is stopped: it has nothing to do."""
        self._end(turn)
        try:
            yield
        finally:
            self._begin(turn)

    def close(self) -> None:
        """End the thread that looks at the clock."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            timer = self._timer
        if timer is not None:
            timer.join()

    def _begin(self, turn: Turn) -> None:
        with self._changed:
            self._schedule.begin(turn)
            self._arrange()

    def _end(self, turn: Turn) -> None:
        with self._changed:
            self._schedule.end(turn, self._clock())
            turn.process.pause()
            self._arrange()

    def _arrange(self) -> None:
        stopped, resumed = self._schedule.arrange(self._clock())
        for turn in stopped:
            turn.process.pause()
        for turn in resumed:
            turn.process.resume()
        if self._schedule.next_look() is not None and not self._closed:
            if self._timer is None:
                self._timer = threading.Thread(target=self._watch, name="turns", daemon=True)
                self._timer.start()
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                seconds = self._schedule.next_look()
                # Woken early it only looks again: what was decided meanwhile is counted in.
                if not self._changed.wait(seconds) and seconds is not None:
                    self._arrange()
