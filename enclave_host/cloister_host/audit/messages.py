"""What the log is asked, and what it answers."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from cloister_host.operations import Request, Result

__all__ = [
    "Checkpoint",
    "Checkpointed",
    "Consistency",
    "Consistent",
    "Evidence",
    "Export",
    "Exported",
    "Prove",
    "Proved",
    "ReceiptEvidence",
    "ReceiptProof",
    "ReceiptProved",
]

MAX_EXPORT: Final = 5000

Size = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
EntryId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,64}\Z")]


class Checkpoint(Request):
    """Asks for the first line of an export: what the log looks like now."""


class Checkpointed(Result):
    """The first line, and the size of the tree it speaks of."""

    header: str
    size: int


class Export(Request):
    """Asks for lines of an export.

    Attributes:
        size: Of the checkpoint.
        start: The index in the log to go on from: `next` of the answer before, or 0.
        limit: Most entries wanted.
    """

    size: Size
    start: Size = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_EXPORT)] = 1000


class Exported(Result):
    """Lines, each ended by a line feed; `next` is None once the last line is among them."""

    lines: str
    next: int | None


class Consistency(Request):
    """Asks for the proof that a tree of size `second` continues the one of size `first`."""

    first: Size
    second: Size


class Consistent(Result):
    """The proof: base64url of its hashes, one after the other."""

    path: str


class ReceiptProof(Request):
    """Asks where a receipt's leaf stands in the log."""

    receipt: EntryId


class ReceiptProved(Result):
    """The place of a receipt's leaf, its inclusion proof as in `Proved`, and the head it leads to."""

    index: int
    path: str
    head: str


class ReceiptEvidence(Request):
    """Asks for the evidence behind a receipt's keyset, as of the receipt's `iat`."""

    keyset: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")]
    at: Size


class Evidence(Result):
    """The attestation document."""

    evidence: dict[str, Any]


class Prove(Request):
    """Asks where an entry stands in the log."""

    entry: EntryId


class Proved(Result):
    """An entry of the log, and the proof that it is one.

    Attributes:
        entry: Its canonical JSON, as it was hashed.
        path: Base64url of the inclusion proof's hashes, one after the other.
        evidence: The attestation document whose keyset names the log key.
    """

    index: int
    salt: str
    entry: str
    path: str
    head: str
    evidence: dict[str, Any]
