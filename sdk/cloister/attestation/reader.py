"""Reading fixed binary layouts: every read is bounded, and nothing may be left over."""

from __future__ import annotations

from cloister.errors import EvidenceError

__all__ = ["Reader"]


class Reader:
    """A cursor over bytes that raises `EvidenceError` instead of reading past the end."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise EvidenceError(f"{self._what}: truncated (step: parse)")
        chunk = self._data[self.position : end]
        self.position = end
        return chunk

    def little(self, count: int) -> int:
        """An unsigned little-endian integer of `count` bytes."""
        return int.from_bytes(self.take(count), "little")

    def big(self, count: int) -> int:
        """An unsigned big-endian integer of `count` bytes."""
        return int.from_bytes(self.take(count), "big")

    def sized(self, count: int, *, limit: int, order: str = "big") -> bytes:
        """Bytes behind a length of `count` bytes that may not exceed `limit`."""
        size = self.big(count) if order == "big" else self.little(count)
        if size > limit:
            raise EvidenceError(f"{self._what}: a field is too large (step: parse)")
        return self.take(size)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self.position)

    def finish(self) -> None:
        """Refuse bytes that were not read."""
        if self.position != len(self._data):
            raise EvidenceError(f"{self._what}: bytes follow the document (step: parse)")
