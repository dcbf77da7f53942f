"""In the worker: what a function prints and logs goes to the host, line by line, as far as the limit."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cloister_host.functions.frames import MAX_LOG_CHARS, Channel, Logged

__all__ = ["Logs"]

_LINE_CHARS: Final = 8192


class Logs(io.TextIOBase):
    """Takes the place of standard output and error. Lines leave at once: a killed call keeps its own."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._pending = ""
        self._left = 0

    def capture(self) -> None:
        """Begin to capture, `logging` from INFO on included."""
        import logging  # noqa: PLC0415 - only functions that keep logs pay for it

        sys.stdout = sys.stderr = self
        logging.basicConfig(stream=self, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    @contextmanager
    def of_one_call(self) -> Iterator[None]:
        """What is written within belongs to this call; what is written outside of any is dropped."""
        self._left, self._pending = MAX_LOG_CHARS, ""
        try:
            yield
        finally:
            self._send(self._pending)
            self._left, self._pending = 0, ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Send whole lines, keep the rest."""
        if self._left > 0:
            self._pending += text[:_LINE_CHARS]
            *lines, self._pending = self._pending.split("\n")
            for line in lines:
                self._send(line + "\n")
            if len(self._pending) >= _LINE_CHARS:
                self._send(self._pending)
                self._pending = ""
        return len(text)

    def _send(self, text: str) -> None:
        text = text[: self._left].encode("utf-8", "replace").decode()
        if text:
            self._left -= len(text)
            self._channel.send(Logged(text))
