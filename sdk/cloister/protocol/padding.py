"""Hide the length of what is sealed (PROTOCOL 6).

The plaintext is JSON; it is padded with trailing spaces, which every JSON parser ignores.
"""

from __future__ import annotations

__all__ = ["pad", "padded_length"]

BUCKET_BYTES = 256
LINEAR_UP_TO_BYTES = 4096


def padded_length(length: int) -> int:
    """Length in bytes after padding: steps of 256 up to 4 KiB, then powers of two."""
    if length <= LINEAR_UP_TO_BYTES:
        return max(BUCKET_BYTES, -(-length // BUCKET_BYTES) * BUCKET_BYTES)
    return 1 << (length - 1).bit_length()


def pad(document: bytes) -> bytes:
    """Pad a JSON document to its bucket."""
    return document.ljust(padded_length(len(document)), b" ")
