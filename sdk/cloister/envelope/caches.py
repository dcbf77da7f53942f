"""Caches of data keys, bounded in number and age. They read no clock: `now` is an argument, in seconds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cloister.envelope import process
from cloister.envelope.content import ContentKey
from cloister.envelope.context import canonical_context
from cloister.envelope.dek import DataKey, Dek

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.secret import Secret

__all__ = ["DekCache", "OpenCache"]

_MAX_ENTRIES: Final = 1024


class DekCache:
    """The data keys one process seals with, one for each key and key context.

    Thread-safe; dropped on fork, and by `drop_data_keys()` after a snapshot restore.
    """

    def __init__(self, *, max_entries: int = _MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self.forget()
        process.on_drop(self)

    def lease(
        self, key: str, key_context: Mapping[str, str] | None, *, messages: int, size_bytes: int, now: float
    ) -> Dek | None:
        """Return a data key with room for a batch set aside, or None: ask the host for another.

        Args:
            key: Name of the key.
            key_context: The part of the context that selects the data key.
            messages: How many values the caller will seal at most.
            size_bytes: How many bytes of plaintext in all.
            now: Seconds on a clock that does not go backwards.
        """
        entry = _entry(key, key_context)
        with self._lock:
            dek = self._deks.get(entry)
            if dek is None:
                return None
            if not dek.is_fresh(now=now):
                del self._deks[entry]
                return None
            self._deks.move_to_end(entry)
        return dek if dek.lease(messages=messages, size_bytes=size_bytes, now=now) else None

    def add(self, key: str, key_context: Mapping[str, str] | None, data_key: DataKey, *, now: float) -> Dek:
        """Keep a new data key, in place of the last one; lease from it before a batch."""
        dek = Dek(data_key, now=now)
        with self._lock:
            self._deks[_entry(key, key_context)] = dek
            self._deks.move_to_end(_entry(key, key_context))
            while len(self._deks) > self._max_entries:
                self._deks.popitem(last=False)
        return dek

    def clear(self) -> None:
        """Drop every data key."""
        with self._lock:
            self._deks.clear()

    def forget(self) -> None:
        """Drop every data key without waiting for a lock that no thread of this process may hold."""
        self._lock = threading.Lock()
        self._deks: OrderedDict[tuple[str, bytes | None], Dek] = OrderedDict()


class OpenCache:
    """Content-encryption keys that were unwrapped before, so that a column costs one unwrap.

    Thread-safe; least recently used entries go first, and none is given out past its age.
    """

    def __init__(self, *, max_entries: int = _MAX_ENTRIES, max_age_seconds: float = 300.0) -> None:
        self._max_entries = max_entries
        self._max_age_seconds = max_age_seconds
        self.forget()
        process.on_drop(self)

    def get(self, kid: str, encrypted_key: bytes, *, now: float) -> ContentKey | None:
        """Return the key under which a value opens, or None: unwrap it and `add` it."""
        entry = (kid, encrypted_key)
        with self._lock:
            found = self._keys.get(entry)
            if found is None:
                return None
            content, added = found
            if not 0 <= now - added < self._max_age_seconds:
                del self._keys[entry]
                return None
            self._keys.move_to_end(entry)
        return content

    def add(self, kid: str, encrypted_key: bytes, cek: Secret, *, now: float) -> ContentKey:
        """Keep an unwrapped content-encryption key."""
        content = ContentKey(cek.reveal())
        with self._lock:
            self._keys[kid, encrypted_key] = (content, now)
            while len(self._keys) > self._max_entries:
                self._keys.popitem(last=False)
        return content

    def clear(self) -> None:
        """Drop every key, as when a key version changes its state."""
        with self._lock:
            self._keys.clear()

    def forget(self) -> None:
        """Drop every key without waiting for a lock that no thread of this process may hold."""
        self._lock = threading.Lock()
        self._keys: OrderedDict[tuple[str, bytes], tuple[ContentKey, float]] = OrderedDict()


def _entry(key: str, key_context: Mapping[str, str] | None) -> tuple[str, bytes | None]:
    return key, None if key_context is None else canonical_context(key_context)
