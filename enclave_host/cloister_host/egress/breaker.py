"""A circuit breaker: an origin that keeps failing is left alone for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cloister.errors import UnavailableError

__all__ = ["Breaker"]

_MAX_CIRCUITS: Final = 4096


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    open_until: float = 0.0


class Breaker:
    """One circuit a tenant and origin, so that no tenant closes an origin for another.

    Args:
        failures: Failures in a row that open a circuit.
        open_seconds: How long it then stays open; afterwards one call tries.
    """

    def __init__(self, *, failures: int = 5, open_seconds: float = 10.0) -> None:
        self._failures = failures
        self._open_seconds = open_seconds
        self._circuits: OrderedDict[tuple[str, str], _Circuit] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, tenant: str, url: str, *, now: float) -> None:
        """Let a call pass, or refuse it.

        Raises:
            UnavailableError: The circuit is open.
        """
        with self._lock:
            circuit = self._circuits.get((tenant, url))
            if circuit is None or circuit.failures < self._failures:
                return
            if now < circuit.open_until:
                raise UnavailableError("the origin has failed repeatedly", hint="it is tried again shortly")
            # The one that tries; the others wait for its outcome.
            circuit.open_until = now + self._open_seconds

    def succeeded(self, tenant: str, url: str) -> None:
        """Close the circuit."""
        with self._lock:
            self._circuits.pop((tenant, url), None)

    def failed(self, tenant: str, url: str, *, now: float) -> None:
        """Count a failure."""
        with self._lock:
            circuit = self._circuits.setdefault((tenant, url), _Circuit())
            self._circuits.move_to_end((tenant, url))
            circuit.failures += 1
            circuit.open_until = now + self._open_seconds
            if len(self._circuits) > _MAX_CIRCUITS:
                self._circuits.popitem(last=False)
