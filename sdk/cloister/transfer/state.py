"""What a transfer has done, kept over crashes: a journal that is only ever added to.

It holds digests, codes and receipt ids: no value, and no item's own name. A line is written before an item is
sent and one after; whichever is missing after a crash says what is not known.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from cloister.errors import ConfigurationError

__all__ = ["Known", "State"]

VERSION: Final = 1
MAX_LINE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one item.

    Attributes:
        status: `sent` is all that is known after a crash; such an item may have been done.
        digest: Of the content that it was sent with.
        at: Epoch seconds of the first sending, while it is not known to be done.
    """

    status: Literal["sent", "done", "failed"]
    digest: str
    at: float


class State:
    """The journal of one transfer, held by one process at a time.

    Args:
        path: New, or of an earlier run of the same transfer.
        about: What makes a transfer the same one: its function and what the items are made of.
        writable: False only looks: nothing is made, locked or mended.

    Raises:
        ConfigurationError: It is another transfer's, another process has it, or it cannot be used.
    """

    def __init__(self, path: Path, about: dict[str, Any], *, writable: bool = True) -> None:
        self._path = path
        self._writable = writable
        try:
            # Whoever made a link of this name does not choose which file is written to.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
            self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be used ({type(error).__name__})") from None
        try:
            self._lock()
            self._items = self._read(about)
        except BaseException:
            os.close(self._descriptor)
            raise

    def get(self, key: str) -> Known | None:
        """What is known of an item."""
        return self._items.get(key)

    def sent(self, key: str, digest: str, *, at: float) -> None:
        """Note that an item is about to be sent; on disk when this returns."""
        known = self._items.get(key)
        if known is not None and known.status == "sent":
            return  # the first time counts
        self._write({"key": key, "status": "sent", "digest": digest, "at": at})
        self._items[key] = Known("sent", digest, at)

    def done(self, key: str, digest: str, *, receipt: str, delivery: str | None) -> None:
        """Note that an item was done."""
        line = {"key": key, "status": "done", "digest": digest, "receipt": receipt}
        self._write(line if delivery is None else {**line, "delivery": delivery})
        self._items[key] = Known("done", digest, 0)

    def failed(self, key: str, digest: str, *, code: str) -> None:
        """Note that an item was refused, and so had no effect."""
        self._write({"key": key, "status": "failed", "digest": digest, "code": code})
        self._items[key] = Known("failed", digest, 0)

    def close(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        if not self._writable:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another process is at work on {self._path}", hint="wait for it, or name another --state"
            ) from None

    def _read(self, about: dict[str, Any]) -> dict[str, Known]:
        head = {"transfer": VERSION, **about}
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            first = file.readline(MAX_LINE_BYTES)
            if not first.endswith(b"\n"):
                self._begin(first, head)
                return {}
            if self._parsed(first) != head:
                raise ConfigurationError(
                    f"{self._path} is the state of another transfer",
                    hint="same function, source and fields as before, or another --state",
                )
            items: dict[str, Known] = {}
            end = file.tell()
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if not line.endswith(b"\n"):
                    break
                self._take(self._parsed(line), items)
                end = file.tell()
        # A line that a crash cut short was never relied on.
        if self._writable:
            os.ftruncate(self._descriptor, end)
        return items

    def _begin(self, first: bytes, head: dict[str, Any]) -> None:
        # Cut short by a crash, or the file of somebody who has the name wrong.
        if first and not (json.dumps(head) + "\n").encode().startswith(first):
            raise ConfigurationError(f"{self._path} is no state of a transfer", hint="name another --state")
        if self._writable:
            os.ftruncate(self._descriptor, 0)
            self._write(head)

    def _take(self, line: Any, items: dict[str, Known]) -> None:
        match line:
            case {"key": str(key), "status": "sent", "digest": str(digest), "at": float(at) | int(at)}:
                items[key] = Known("sent", digest, at)
            case {"key": str(key), "status": "done" | "failed" as status, "digest": str(digest)}:
                items[key] = Known(status, digest, 0)
            case _:
                raise ConfigurationError(f"{self._path} is damaged", hint="name another --state")

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise ConfigurationError(
                f"{self._path} is no state of a transfer", hint="name another --state"
            ) from None

    def _write(self, line: dict[str, Any]) -> None:
        raw = (json.dumps(line) + "\n").encode()
        try:
            while raw:
                raw = raw[os.write(self._descriptor, raw) :]
            os.fdatasync(self._descriptor)
        except OSError as error:
            # What cannot be noted must not be sent.
            raise ConfigurationError(f"{self._path} cannot be written ({type(error).__name__})") from None
