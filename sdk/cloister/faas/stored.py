"""Sealed values as objects of a bucket, in every cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["SealedInfo"]


class SealedInfo(NamedTuple):
    """What an object tells without being read.

    Attributes:
        kid: Key version that the value is under, as its writer noted it; believe `Sealed.kid` alone.
        etag: For `if_match`.
        size_bytes: Length of the sealed value.
        metadata: What the writer put beside it, in the clear.
    """

    kid: str
    etag: str
    size_bytes: int
    metadata: Mapping[str, str]
