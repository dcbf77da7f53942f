"""Failed logins: counted, told in the audit log at most once a minute, and slowed down (PROTOCOL 8).

A log entry for each would let anybody fill the store. A credential that keeps failing is refused without
another look into the store, and whoever tries many under one name is told to wait. Nobody's right credential
is kept out by somebody else's wrong ones: it is counted apart from them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cloister.errors import LimitError

__all__ = ["Attempts"]

WINDOW_SECONDS: Final = 60
MAX_FAILURES: Final = 10
MAX_FAILURES_OF_A_NAME: Final = 100
MAX_NAMES: Final = 10_000
MAX_TENANTS: Final = 10_000


@dataclass(slots=True)
class _Window:
    began: float
    failures: int = 0
    untold: int = 0


class Attempts:
    """Failures of this process, bounded in memory.

    Args:
        monotonic: Seconds that only go forward.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._names: OrderedDict[bytes, _Window] = OrderedDict()
        self._tenants: OrderedDict[str, _Window] = OrderedDict()
        self.total = 0

    def check(self, exact: bytes) -> None:
        """Refuse a credential that has just failed too often.

        Raises:
            LimitError: It has to wait.
        """
        with self._lock:
            window = self._names.get(exact)
            if window is None or self._monotonic() - window.began >= WINDOW_SECONDS:
                return
            if window.failures >= MAX_FAILURES:
                self.total += 1
                raise LimitError(
                    "this credential was refused too often",
                    hint=f"check it, and try again in {WINDOW_SECONDS} seconds",
                )

    def failed(self, exact: bytes, public: bytes, tenant: str) -> bool:
        """Count one failure; tells whether there were too many under the public name."""
        now = self._monotonic()
        with self._lock:
            self.total += 1
            self._window(exact, now).failures += 1
            named = self._window(public, now)
            named.failures += 1
            self._tenants.setdefault(tenant, _Window(began=now - WINDOW_SECONDS)).untold += 1
            if len(self._tenants) > MAX_TENANTS:
                self._tenants.popitem(last=False)
            return named.failures > MAX_FAILURES_OF_A_NAME

    def untold(self, tenant: str) -> int:
        """How many failures of a tenant to tell of now; asking takes them off the count."""
        now = self._monotonic()
        with self._lock:
            window = self._tenants.get(tenant)
            if window is None or not window.untold or now - window.began < WINDOW_SECONDS:
                return 0
            count, window.untold, window.began = window.untold, 0, now
            return count

    def _window(self, name: bytes, now: float) -> _Window:
        window = self._names.pop(name, None)
        if window is None or now - window.began >= WINDOW_SECONDS:
            window = _Window(began=now)
        self._names[name] = window
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)
        return window
