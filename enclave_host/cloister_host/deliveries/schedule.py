"""When a failed delivery is sent again."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a failed sending is tried again: doubling waits with jitter, then it is dead.

    Attributes:
        first_seconds: Wait after the first failure.
        longest_seconds: No wait is longer.
        attempts: Sendings before a delivery is given up; by default for about six hours.
        poll_seconds: How often to look for what became due or was left by another replica.
    """

    first_seconds: float = 1.0
    longest_seconds: float = 3600.0
    attempts: int = 16
    poll_seconds: float = 1.0

    def wait_seconds(self, attempts: int) -> float:
        """How long to wait after so many failures."""
        longest = min(self.first_seconds * 2.0 ** (attempts - 1), self.longest_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
