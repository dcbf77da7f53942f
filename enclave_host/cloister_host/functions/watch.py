"""One run as the host sees it from outside: what it logs, how far it is, and a way to end it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister_host.functions.frames import MAX_LOG_CHARS

__all__ = ["Watch"]


class Watch:
    """Given to a run; its listeners are called on the thread of the run.

    Args:
        on_progress: Told each new percentage, which only ever grows.

    Attributes:
        debug: Whether the text of failures may leave.
        ran: Whether the function was given its inputs.
    """

    def __init__(self, *, on_progress: Callable[[int], None] | None = None) -> None:
        self.debug = False
        self.ran = False
        self._on_progress = on_progress
        self._percent = 0
        self._logs: list[str] = []
        self._left = MAX_LOG_CHARS
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._cancelled = False

    @property
    def logs(self) -> str:
        """What was logged, up to the limit."""
        return "".join(self._logs)

    @property
    def cancelled(self) -> bool:
        """Whether it was told to end."""
        return self._cancelled

    def logged(self, text: str) -> None:
        """Keep a piece of the log; what is over the limit is dropped."""
        if self._left > 0:
            self._logs.append(text[: self._left])
            self._left -= len(self._logs[-1])

    def progressed(self, percent: int) -> None:
        """Pass progress on. Hostile: whatever it says, 0 to 100 leaves, and never less than before."""
        if self._percent < percent <= 100:  # noqa: PLR2004 - percent
            self._percent = percent
            if self._on_progress is not None:
                self._on_progress(percent)

    def cancel(self) -> None:
        """End the run, or keep it from beginning."""
        with self._lock:
            self._cancelled = True
            if self._end is not None:
                self._end()

    @contextmanager
    def running(self, end: Callable[[], None]) -> Iterator[None]:
        """While this lasts, `cancel` calls `end`."""
        with self._lock:
            self._end = end
            self.ran = True
            if self._cancelled:
                end()
        try:
            yield
        finally:
            with self._lock:
                self._end = None
