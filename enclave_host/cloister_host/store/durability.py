"""Fully synchronous commits of SQLite, shared by the transactions that end at the same time.

SQLite with `synchronous = FULL` flushes its write-ahead log once a commit, while it holds the only
write lock. Here commits write the log (`NORMAL`), the lock goes to the next writer, and one flush of
the log then serves every commit that was written before it began. Nobody is told of a commit, and
nobody's answer depends on one, before that flush has ended: what a caller sees is `FULL`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from cloister.errors import UnavailableError

__all__ = ["LogFlush"]


class LogFlush:
    """Flushes a SQLite write-ahead log for whoever waits.

    Args:
        database: The database file; its log is beside it, under the documented name.
    """

    def __init__(self, database: Path) -> None:
        self._log: Final = Path(f"{database}-wal")
        self._state = threading.Condition()
        self._written = 0
        self._flushed = 0
        self._flushing = False
        self._failed = False

    def written(self) -> None:
        """Note that a commit was written to the log; call it before the next writer begins."""
        with self._state:
            self._written += 1

    def wait(self) -> None:
        """Return once everything written so far is on the disk.

        Raises:
            UnavailableError: The disk failed. What a flush that failed has lost is not known, so the
                store answers nothing more until the host starts anew.
        """
        with self._state:
            wanted = self._written
            while self._flushed < wanted:
                if self._failed:
                    raise UnavailableError("the store's disk failed", retryable=False)
                if self._flushing:
                    self._state.wait()
                else:
                    self._lead()

    def _lead(self) -> None:
        """Flush for everyone who waits; the condition is held on the way in and out."""
        serves, self._flushing = self._written, True
        self._state.release()
        flushed = False
        try:
            log = os.open(self._log, os.O_RDONLY)
            try:
                os.fdatasync(log)
                flushed = True
            finally:
                os.close(log)
        except OSError:
            pass
        finally:
            self._state.acquire()
            self._flushing = False
            self._failed = self._failed or not flushed
            if flushed:
                self._flushed = max(self._flushed, serves)
            self._state.notify_all()
