"""How many calls of whom are worked on at a time; the rest wait in their tenant's line, or are refused."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cloister.errors import UnavailableError

__all__ = ["Admission"]

WAIT_SECONDS: Final = 30.0


class Admission:
    """Lets calls in: tenants in turn, within a tenant as they came.

    Args:
        max_busy: Calls of all tenants at a time. A tenant without any is let in beyond it: whoever fills
            the house cannot close the door.
        max_busy_per_tenant: Calls of one tenant at a time.
        max_waiting_per_tenant: More are refused at once: waiting takes a thread of the server.
    """

    def __init__(self, *, max_busy: int, max_busy_per_tenant: int, max_waiting_per_tenant: int) -> None:
        self._max_busy = max_busy
        self._max_busy_per_tenant = max_busy_per_tenant
        self._max_waiting = max_waiting_per_tenant
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        # Of tenants with someone waiting; the one that is to be asked next first.
        self._lines: dict[str, deque[threading.Event]] = {}
        self._closed = False

    @property
    def busy(self) -> int:
        """Calls that are worked on."""
        return self._busy.total()

    @contextmanager
    def of(self, tenant: str) -> Iterator[None]:
        """Within, the call is one of those that are worked on.

        Raises:
            UnavailableError: Too many of this tenant wait already, or this one has waited too long.
        """
        ticket = self._enter(tenant)
        try:
            if not ticket.wait(WAIT_SECONDS) or self._closed:
                raise UnavailableError("every worker is busy", hint="retry later")
            yield
        finally:
            self._leave(tenant, ticket)

    def close(self) -> None:
        """Refuse everyone who waits, and who comes."""
        with self._lock:
            self._closed = True
            for line in self._lines.values():
                for ticket in line:
                    ticket.set()

    def _enter(self, tenant: str) -> threading.Event:
        ticket = threading.Event()
        with self._lock:
            if self._closed:
                raise UnavailableError("the host is stopping", hint="retry later")
            self._lines.setdefault(tenant, deque()).append(ticket)
            self._admit()
            line = self._lines.get(tenant, ())
            if ticket in line and len(line) > self._max_waiting:
                self._withdraw(tenant, ticket)
                raise UnavailableError("too many calls of this tenant are waiting", hint="retry later")
        return ticket

    def _leave(self, tenant: str, ticket: threading.Event) -> None:
        with self._lock:
            if ticket in self._lines.get(tenant, ()):
                self._withdraw(tenant, ticket)
            else:
                self._busy -= Counter([tenant])
            self._admit()

    def _withdraw(self, tenant: str, ticket: threading.Event) -> None:
        self._lines[tenant].remove(ticket)
        if not self._lines[tenant]:
            del self._lines[tenant]

    def _admit(self) -> None:
        """Let in whoever may, one of each tenant in turn."""
        while tenant := next(filter(self._has_room, self._lines), None):
            line = self._lines.pop(tenant)
            line.popleft().set()
            self._busy[tenant] += 1
            if line:
                # To the back.
                self._lines[tenant] = line

    def _has_room(self, tenant: str) -> bool:
        mine = self._busy[tenant]
        return mine < self._max_busy_per_tenant and (mine == 0 or self._busy.total() < self._max_busy)
