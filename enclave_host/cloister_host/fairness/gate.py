"""Carries shares out: requests wait at the gate, and where they wait for something else, others work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from cloister_host.fairness.shares import Shares, Ticket

__all__ = ["Gate", "Place", "aside"]

_here: Final = threading.local()


class Place:
    """A request that was let in; hold it in the thread that works on it."""

    def __init__(self, gate: Gate, ticket: Ticket) -> None:
        self._gate = gate
        self._ticket = ticket
        self._began = 0.0
        self.ended = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, this thread works on the request; it does so once. What it waits for is `aside`."""
        self._began, _here.place = time.thread_time(), self
        try:
            yield
        finally:
            _here.place, self.ended = None, True
            self._gate.end(self._ticket, used=time.thread_time() - self._began)

    def give_up(self) -> None:
        """Let others work."""
        self._gate.give_up(self._ticket, used=time.thread_time() - self._began)

    def take_back(self) -> None:
        """Wait until it is this one's turn again."""
        self._gate.take_back(self._ticket)
        self._began = time.thread_time()


@contextmanager
def aside() -> Iterator[None]:
    """Within, this thread waits for something else than the host's own work, and other requests go on."""
    place: Place | None = getattr(_here, "place", None)
    if place is None:
        yield
        return
    _here.place = None
    place.give_up()
    try:
        yield
    finally:
        place.take_back()
        _here.place = place


class Gate:
    """Lets requests in, tenants in turn.

    Args:
        shares: Decides.
        clock: Monotonic seconds.
    """

    def __init__(self, shares: Shares, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shares = shares
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[Ticket, Callable[[], object]] = {}
        self._timer: threading.Thread | None = None
        self._closed = False

    @asynccontextmanager
    async def entered(self, tenant: str, *, patient: bool = False) -> AsyncIterator[Place]:
        """Within, a request of this tenant is let in.

        Args:
            tenant: Whose it is.
            patient: It is the rest of one that was let in before, and is not refused.

        Raises:
            LimitError: Too many of its tenant wait already.
        """
        loop, turn, ticket = asyncio.get_running_loop(), asyncio.Event(), Ticket(tenant=tenant)
        place = Place(self, ticket)
        with self._changed:
            self._shares.arrive(ticket, patient=patient)
            waits = self._waits(ticket, lambda: loop.call_soon_threadsafe(turn.set))
        try:
            if waits:
                await turn.wait()
            yield place
        finally:
            if not place.ended:
                self._abandon(ticket)

    def give_up(self, ticket: Ticket, *, used: float) -> None:
        """Its thread waits for something else."""
        with self._changed:
            self._shares.give_up(ticket, used=used)
            self._admit()

    def take_back(self, ticket: Ticket) -> None:
        """Block this thread until it is the request's turn again."""
        turn = threading.Event()
        with self._changed:
            self._shares.take_back(ticket)
            waits = self._waits(ticket, turn.set)
        if waits:
            turn.wait()

    def end(self, ticket: Ticket, *, used: float) -> None:
        """Its thread is done with it."""
        with self._changed:
            self._shares.end(ticket, used=used)
            self._admit()

    def close(self) -> None:
        """End the thread that looks at the clock."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            timer = self._timer
        if timer is not None:
            timer.join()

    def _waits(self, ticket: Ticket, wake: Callable[[], object]) -> bool:
        self._waiting[ticket] = wake
        self._admit()
        return ticket in self._waiting

    def _abandon(self, ticket: Ticket) -> None:
        """Its sender went away, before or after its turn came."""
        with self._changed:
            if self._shares.withdraw(ticket):
                del self._waiting[ticket]
            else:
                self._shares.end(ticket, used=0.0)
            self._admit()

    def _admit(self) -> None:
        now = self._clock()
        for ticket in self._shares.admit(now):
            self._waiting.pop(ticket)()
        if self._waiting and not self._closed and self._shares.next_look(now) is not None:
            if self._timer is None:
                self._timer = threading.Thread(target=self._watch, name="gate", daemon=True)
                self._timer.start()
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                seconds = self._shares.next_look(self._clock())
                # Woken early it only looks again: what was decided meanwhile is counted in.
                if not self._changed.wait(seconds) and seconds is not None:
                    self._admit()
