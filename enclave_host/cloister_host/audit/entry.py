"""One entry of the log: canonical JSON, salted into its leaf by `cloister.receipts.merkle.leaf_hash`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = ["SALT_BYTES", "Entry", "Outcome"]

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
