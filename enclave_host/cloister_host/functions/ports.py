"""What the functions need from the rest of the host."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from cloister.receipts import Receipt
from cloister_host.audit import Recorded
from cloister_host.store import Tx

__all__ = ["Act", "ReceiptIssuer"]


class Act(Protocol):
    """A staged operation in progress: transactions with work outside the store between them.

    Attributes:
        request_digest: Base64url SHA-256 of the sealed request, for receipts.
        length: Characters that a failure is padded to, once it is known how long an answer is.
    """

    length: int

    @property
    def request_digest(self) -> str:
        """Base64url SHA-256 of the sealed request, for receipts."""
        ...

    def begin(self) -> AbstractContextManager[Tx]:
        """One transaction."""
        ...

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        """Remember the result for a repetition of the request, in the transaction of its effect."""
        ...


class ReceiptIssuer(Protocol):
    """Issues receipts of recorded acts; what is disclosed is salted and digested."""

    def issue(
        self,
        tx: Tx,
        recorded: Recorded,
        *,
        request: str,
        claims: Mapping[str, Any] | None = None,
        disclosures: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Issue the receipt of one act."""
        ...
