"""Answers that may be used again (RFC 9111, the part for one reader), bounded per tenant and in all."""

from __future__ import annotations

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from cloister.errors import UnavailableError
from cloister_host.functions.frames import Answer

__all__ = ["Cache", "CacheKey", "Cached", "fresh_seconds"]

_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age=(\d{1,9})\s*(?:,|$)", re.IGNORECASE)
_LOCKS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """Everything an answer depends on. Two tenants, bundles or versions of a secret share nothing."""

    tenant: str
    digest: str
    url: str
    target: str
    headers: tuple[tuple[str, str], ...]
    secret_versions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """A stored answer; after `expires` (monotonic) it is only good for revalidation."""

    answer: Answer = field(repr=False)
    expires: float

    @property
    def etag(self) -> str | None:
        """The validator, if the origin gave one."""
        return self.answer.headers.get("etag")

    @property
    def size_bytes(self) -> int:
        """What it counts against the limits."""
        return len(self.answer.body) + sum(len(k) + len(v) for k, v in self.answer.headers.items()) + 512


def fresh_seconds(answer: Answer, declared_seconds: int) -> int | None:
    """How long an answer may be used: at most as declared, less if the origin says so, None not at all."""
    control = answer.headers.get("cache-control", "").lower()
    if "no-store" in control or answer.headers.get("vary", "").strip() == "*":
        return None
    if "no-cache" in control:
        return 0
    said = _MAX_AGE.search(control)
    return min(declared_seconds, int(said[1])) if said else declared_seconds


class Cache:
    """Least recently used answers leave first, a tenant's own before another's.

    Args:
        max_bytes: Of all tenants.
        max_tenant_bytes: Of one tenant.
    """

    def __init__(self, *, max_bytes: int = 256 << 20, max_tenant_bytes: int = 32 << 20) -> None:
        self._max_bytes = max_bytes
        self._max_tenant_bytes = max_tenant_bytes
        self._entries: OrderedDict[CacheKey, Cached] = OrderedDict()
        self._sizes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._flights = [threading.Lock() for _ in range(_LOCKS)]

    @contextmanager
    def flight(self, key: CacheKey, *, timeout_seconds: float) -> Iterator[None]:
        """Only one caller at a time fetches one thing; the others find it stored.

        Raises:
            UnavailableError: The one ahead takes too long.
        """
        lock = self._flights[hash(key) % _LOCKS]
        if not lock.acquire(timeout=max(timeout_seconds, 0)):
            raise UnavailableError("the origin did not answer in time", hint="retry later")
        try:
            yield
        finally:
            lock.release()

    def get(self, key: CacheKey) -> Cached | None:
        """The stored answer, fresh or not."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: CacheKey, cached: Cached) -> None:
        """Store an answer, in the place of an older one."""
        with self._lock:
            self._drop(key)
            if cached.size_bytes > self._max_tenant_bytes:
                return
            self._entries[key] = cached
            self._sizes[key.tenant] += cached.size_bytes
            while self._sizes[key.tenant] > self._max_tenant_bytes:
                self._drop(next(other for other in self._entries if other.tenant == key.tenant))
            while self._sizes.total() > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def refresh(self, key: CacheKey, cached: Cached, *, expires: float) -> None:
        """Note that an answer was confirmed."""
        self.put(key, replace(cached, expires=expires))

    def _drop(self, key: CacheKey) -> None:
        dropped = self._entries.pop(key, None)
        if dropped is not None:
            self._sizes[key.tenant] -= dropped.size_bytes
