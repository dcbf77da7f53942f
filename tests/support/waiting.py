"""Waiting for a condition, with a deadline that a busy machine does not reach."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]

DEADLINE_SECONDS = 90.0


def until(condition: Callable[[], object], *, seconds: float = DEADLINE_SECONDS) -> None:
    """Return once the condition holds, or fail after a generous while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
