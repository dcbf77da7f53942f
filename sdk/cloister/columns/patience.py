"""Asking again: a bulk job outlives a restart of the host, and does not press one that is overloaded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cloister.errors import CloisterError, ConfigurationError

__all__ = ["Patience"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a call that may succeed later is tried again, beyond the client's own few attempts.

    Waits double from `first_seconds` to `longest_seconds`, each shortened at random by up to half, so that
    workers which failed together do not come back together. While one waits it reads no rows.

    Attributes:
        seconds: Since the first failure; 0 asks once.
        first_seconds: The first wait.
        longest_seconds: No wait is longer.
    """

    seconds: float = 600.0
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    sleep: Callable[[float], object] = field(default=time.sleep, repr=False, compare=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    jitter: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.seconds >= 0 and 0 < self.first_seconds <= self.longest_seconds):
            raise ConfigurationError("patience is counted in seconds, the first wait at most the longest")

    def call(self, work: Callable[[], T], *, told: Callable[[], object] | None = None) -> T:
        """Do `work`, again while its error is retryable and there is time.

        Args:
            work: Sends the same request, under the same idempotency key, each time.
            told: Called before each wait.

        Raises:
            CloisterError: The last one.
        """
        until: float | None = None
        pause = self.first_seconds
        while True:
            try:
                return work()
            except CloisterError as error:
                now = self.clock()
                until = now + self.seconds if until is None else until
                wait = pause * (1 - self.jitter() / 2)
                if not error.retryable or now + wait > until:
                    raise
            if told is not None:
                told()
            self.sleep(wait)
            pause = min(2 * pause, self.longest_seconds)
