"""Which tenant's request is worked on next; decides, and does nothing else.

Turns go by time that was used, not by requests: the next one is that of the tenant that has used least,
and nobody who has used more begins beside it. So a tenant that asks for little finds the host as if it
were alone, but for what was begun before it came.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from cloister.errors import LimitError

__all__ = ["Limits", "Shares", "Ticket"]

SLICE_SECONDS: Final = 0.01
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is begun at a time.

    Attributes:
        at_once: Requests worked on; those that have been at it for longer than a slice count no more.
        inside: Requests begun and not answered; a tenant without any is let in beyond that.
        inside_per_tenant: Of one tenant.
        waiting_per_tenant: Requests of one tenant that wait to begin; more are refused.
    """

    at_once: int
    inside: int
    inside_per_tenant: int
    waiting_per_tenant: int


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """One request.

    Attributes:
        tenant: Whose it is.
        since: When its present stretch of work began.
    """

    tenant: str
    since: float = 0.0


@dataclass(slots=True)
class _Line:
    """The requests of one tenant."""

    used: float
    arrived: deque[Ticket] = field(default_factory=deque)
    returned: deque[Ticket] = field(default_factory=deque)
    inside: int = 0


class Shares:
    """Lets requests work in turn, without a clock, threads or waiting of its own.

    Args:
        limits: How much is begun at a time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: dict[str, _Line] = {}
        self._used: dict[str, float] = {}
        self._working: list[Ticket] = []
        self._inside = 0

    def arrive(self, ticket: Ticket, *, patient: bool = False) -> None:
        """Let a request wait to begin; `admit` follows. A `patient` one is part of what was let in before.

        Raises:
            LimitError: Too many of its tenant wait already.
        """
        line = self._line(ticket.tenant)
        if not patient and len(line.arrived) >= self._limits.waiting_per_tenant:
            raise LimitError(
                "too many requests of this tenant are waiting",
                hint="send fewer at a time; retry after 1 second",
                retryable=True,
            )
        line.arrived.append(ticket)

    def withdraw(self, ticket: Ticket) -> bool:
        """A request waits no more to begin; false if it has begun."""
        line = self._lines.get(ticket.tenant)
        if line is None or ticket not in line.arrived:
            return False
        line.arrived.remove(ticket)
        self._forget(ticket.tenant)
        return True

    def give_up(self, ticket: Ticket, *, used: float) -> None:
        """A request waits for something else; `admit` follows."""
        self._working.remove(ticket)
        self._lines[ticket.tenant].used += used

    def take_back(self, ticket: Ticket) -> None:
        """A request can go on; `admit` follows."""
        self._lines[ticket.tenant].returned.append(ticket)

    def end(self, ticket: Ticket, *, used: float) -> None:
        """A request that works is answered; `admit` follows."""
        self.give_up(ticket, used=used)
        self._lines[ticket.tenant].inside -= 1
        self._inside -= 1
        self._forget(ticket.tenant)

    def admit(self, now: float) -> list[Ticket]:
        """Whose turn it is now."""
        admitted: list[Ticket] = []
        while (tenant := self._next(now)) is not None:
            line = self._lines[tenant]
            if line.returned:
                ticket = line.returned.popleft()
            else:
                ticket = line.arrived.popleft()
                line.inside += 1
                self._inside += 1
            ticket.since = now
            self._working.append(ticket)
            admitted.append(ticket)
        return admitted

    def next_look(self, now: float) -> float | None:
        """Seconds until a request has had its slice, if anybody waits."""
        if not any(line.returned or self._may_begin(line) for line in self._lines.values()):
            return None
        fresh = [SLICE_SECONDS - (now - ticket.since) for ticket in self._working]
        return min((max(seconds, SLICE_SECONDS / 10) for seconds in fresh if seconds > 0), default=None)

    def _next(self, now: float) -> str | None:
        ready = [name for name, line in self._lines.items() if line.returned or self._may_begin(line)]
        if not ready:
            return None
        tenant = min(ready, key=lambda name: self._lines[name].used)
        # What takes long waits for something that nobody thought of, or has had its share.
        fresh = [ticket for ticket in self._working if now - ticket.since < SLICE_SECONDS]
        if len(fresh) < self._limits.at_once:
            ahead = [ticket for ticket in fresh if ticket.tenant != tenant]
        else:
            ahead = fresh
        used = self._lines[tenant].used
        return tenant if all(used < self._lines[ticket.tenant].used for ticket in ahead) else None

    def _may_begin(self, line: _Line) -> bool:
        if not line.arrived or line.inside >= self._limits.inside_per_tenant:
            return False
        return line.inside == 0 or self._inside < self._limits.inside

    def _line(self, tenant: str) -> _Line:
        line = self._lines.get(tenant)
        if line is None:
            # Whoever was away has saved up a slice and no more.
            least = min((other.used for other in self._lines.values()), default=0.0) - SLICE_SECONDS
            line = self._lines[tenant] = _Line(max(self._used.pop(tenant, least), least))
        return line

    def _forget(self, tenant: str) -> None:
        """Keep of a tenant without requests only what it has used."""
        line = self._lines[tenant]
        if line.inside or line.arrived or line.returned:
            return
        del self._lines[tenant]
        self._used[tenant] = line.used
        if len(self._used) > _REMEMBERED:
            del self._used[next(iter(self._used))]
