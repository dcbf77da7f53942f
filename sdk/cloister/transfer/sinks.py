"""Where replies go, for functions that do not deliver themselves: lines of a file, or objects of a bucket."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError
from cloister.reply import Reply
from cloister.transfer.items import Item, ValueStore

__all__ = ["LineSink", "StoreSink"]


class LineSink:
    """A file with one JSON object a reply: `id`, `value`, `receipt`, and `delivery` where there is one.

    A reply that is in it already is not written again, whatever crashed before.

    Args:
        path: New, or of an earlier run.

    Raises:
        ConfigurationError: It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be used ({type(error).__name__})") from None
        try:
            self._keys = self._read()
        except BaseException:
            os.close(self._descriptor)
            raise

    def put(self, item: Item, key: str, reply: Reply) -> None:
        """Write a reply; see `Sink`."""
        line = {"key": key, "id": item.id, "value": reply.value, "receipt": reply.receipt.id}
        if reply.delivery_id is not None:
            line["delivery"] = reply.delivery_id
        raw = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with self._lock:
            if key in self._keys:
                return
            try:
                while raw:
                    raw = raw[os.write(self._descriptor, raw) :]
                os.fdatasync(self._descriptor)
            except OSError as error:
                raise ConfigurationError(f"{self._path} cannot be written ({type(error).__name__})") from None
            self._keys.add(key)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> set[str]:
        keys: set[str] = set()
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break  # cut short by a crash; its reply will come again
                try:
                    keys.add(json.loads(line)["key"])
                except (ValueError, TypeError, KeyError, RecursionError):
                    raise ConfigurationError(
                        f"{self._path} holds something else than replies", hint="name another --out"
                    ) from None
                end = file.tell()
        os.ftruncate(self._descriptor, end)
        return keys


class StoreSink:
    """A bucket that gets each sealed reply as an object, named as the item and never replaced."""

    def __init__(self, store: ValueStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def put(self, item: Item, key: str, reply: Reply) -> None:  # noqa: ARG002 (the name tells a repetition)
        """Write a reply; see `Sink`.

        Raises:
            ConfigurationError: The function lets out something else than a sealed value, or there is another
                object of that name.
        """
        if not isinstance(reply.value, Sealed):
            raise ConfigurationError("the function lets out no sealed value", hint="name a file with --out")
        name = self._prefix + item.id
        if not self._store.put_new(name, reply.value) and self._store.get(name) != reply.value:
            raise ConfigurationError("there is another object of that name", hint="nothing was replaced")

    def close(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
