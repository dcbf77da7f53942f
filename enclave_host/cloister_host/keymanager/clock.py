"""A clock that does not go back."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["ForwardClock"]


class ForwardClock:
    """The latest time that was ever seen: whoever sets the host's clock back revives no key.

    It lasts as long as the process. What time has done to a key is also written down by the scheduler,
    so a restart under an earlier time undoes at most what came due since its last round.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest = clock()

    def __call__(self) -> float:
        """Epoch seconds."""
        with self._lock:
            self._latest = max(self._latest, self._clock())
            return self._latest
