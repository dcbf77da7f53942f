"""Turns of several processes at one SQLite file: first come, first served.

SQLite's own busy handler polls with growing pauses, so that a process which writes again and again starves
the others. Here a process queues on two file locks: whoever is next holds the door while another writes,
so that nobody who has just written goes before it. The kernel frees the locks of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["Turns"]


class Turns:
    """The turns at one database file; one thread of a process asks at a time.

    Args:
        database: The database file; the locks are files beside it.
    """

    def __init__(self, database: Path) -> None:
        self._next: Final = _open(Path(f"{database}-next"))
        self._now: Final = _open(Path(f"{database}-turn"))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for this process's turn, and keep it to the end of the block."""
        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._now, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._now, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave the queue for good."""
        os.close(self._next)
        os.close(self._now)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
