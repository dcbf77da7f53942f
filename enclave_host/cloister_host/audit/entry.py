"""One leaf of the log.

The leaf is SHA-256(0x00 || SHA-256(salt || entry)) over the entry's canonical JSON: the log can be
published without giving away the entries, since nobody guesses a 32-byte salt.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

__all__ = ["SALT_BYTES", "Entry", "Outcome", "leaf_hash"]

SALT_BYTES: Final = 32

Outcome = Literal["done", "refused", "intent", "unknown", "failed"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who did what to which thing, and how it ended. Names and digests only.

    Attributes:
        at: Milliseconds since the epoch, by the host's clock.
        detail: Names, counts and digests; never a value, not even a bare digest of a guessable one.
    """

    id: str
    at: int
    tenant: str
    principal: str
    kind: str
    on_behalf_of: str
    correlation_id: str
    act: str
    resource: str
    outcome: Outcome
    detail: dict[str, str | int]


def leaf_hash(salt: bytes, entry: bytes) -> bytes:
    """Hash an entry into its leaf (the outer 0x00 as in RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\x00" + hashlib.sha256(salt + entry).digest()).digest()
