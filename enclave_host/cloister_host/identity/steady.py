"""A clock that never goes back: what has expired stays expired, whatever the operator does to the time."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["SteadyClock"]


class SteadyClock:
    """Epoch seconds by another clock, never less than what was given before.

    A clock that was once far ahead keeps it there until the host starts anew: then everything seems
    expired, which is the safe way to be wrong.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest = float("-inf")

    def __call__(self) -> float:
        """The time."""
        # Two threads may race here; each gets a time that was true, and the later one stays.
        self._latest = max(self._latest, self._clock())
        return self._latest
