"""Receipts of acts, tied to the leaf of the act's entry; and the evidence they will be verified with.

A receipt is made of the entry: who is shown it learns names and digests, and of what could be guessed
(counts, results, timing) only salted digests. Its id is the entry's, so that its place in the log is found
later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import text

from cloister.errors import ConfigurationError
from cloister.jose import b64url_encode
from cloister.protocol import AttestationDocument
from cloister.receipts import Receipt
from cloister.receipts.receipt import PROFILE
from cloister_host.audit.audit import Recorded
from cloister_host.store import Tx

__all__ = ["EvidenceArchive", "ReceiptSigner", "Receipts"]

_KEEP: Final = text(
    "INSERT INTO receipt_evidence (keyset, kept_at, document) VALUES (:keyset, :kept_at, :document)"
    " ON CONFLICT (keyset, kept_at) DO NOTHING"
)
_FIND: Final = text(
    "SELECT document FROM receipt_evidence WHERE keyset = :keyset AND kept_at <= :at"
    " ORDER BY kept_at DESC LIMIT 1"
)


class ReceiptSigner(Protocol):
    """Port: the replica's receipt key, the keyset that names it, and evidence for that keyset."""

    def staple(self) -> AttestationDocument:
        """Evidence over the current keyset that answers no challenge; the same object while it is fresh."""
        ...

    def issue_receipt(
        self, claims: Mapping[str, Any], disclosures: Mapping[str, Any], *, receipt_id: str, at: int
    ) -> Receipt:
        """Sign a receipt of a time (epoch seconds); deployment and keyset are added."""
        ...


class EvidenceArchive:
    """Keeps the evidence behind receipts, by the digest of its keyset. Evidence proves itself: no MAC."""

    def __init__(self, signer: ReceiptSigner) -> None:
        self._signer = signer
        self._kept: AttestationDocument | None = None

    def keep(self, tx: Tx, *, at: int) -> None:
        """Keep the evidence that is stapled now, in the transaction of the first receipt that needs it."""
        document = self._signer.staple()
        if document is self._kept:
            return
        row = {
            "keyset": keyset_digest(document),
            "kept_at": at,
            "document": msgspec.json.encode(document.to_json()),
        }
        tx.execute_many(_KEEP, [row])
        tx.on_commit(lambda: self._remember(document))

    def find(self, tx: Tx, keyset: str, *, at: int) -> AttestationDocument:
        """The evidence that stood behind a keyset at a time.

        Raises:
            ConfigurationError: There is none.
        """
        row = tx.execute(_FIND, {"keyset": keyset, "at": at}).first()
        if row is None or not isinstance(row[0], bytes):
            raise ConfigurationError("there is no evidence of this keyset for that time")
        return AttestationDocument.from_bytes(row[0])

    def _remember(self, document: AttestationDocument) -> None:
        self._kept = document


class Receipts:
    """Issues receipts.

    Args:
        signer: Signs them.
        clock: Epoch seconds.
    """

    def __init__(self, signer: ReceiptSigner, clock: Callable[[], float]) -> None:
        self._signer = signer
        self._clock = clock
        self.archive: Final = EvidenceArchive(signer)

    def issue(
        self,
        tx: Tx,
        recorded: Recorded,
        *,
        request: str,
        claims: Mapping[str, Any] | None = None,
        disclosures: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Issue the receipt of an act, in the transaction that its entry is written in or behind it.

        Args:
            tx: The transaction.
            recorded: The act's entry.
            request: Base64url SHA-256 of the sealed request.
            claims: What everyone who is shown the receipt may read beside what the entry names.
            disclosures: What only whoever got the sealed reply can show.
        """
        # Evidence first: it must not be younger than the receipt that it stands behind.
        self._signer.staple()
        entry, at = recorded.content, int(self._clock())
        receipt = self._signer.issue_receipt(
            {
                "eat_profile": PROFILE,
                "eat_nonce": request,
                "tenant": entry.tenant,
                "act": entry.act,
                "resource": entry.resource,
                "outcome": entry.outcome,
                "leaf": b64url_encode(recorded.leaf),
                **(claims or {}),
            },
            {
                "principal": entry.on_behalf_of or entry.principal,
                "detail": dict(entry.detail),
                **(disclosures or {}),
            },
            receipt_id=recorded.id,
            at=at,
        )
        self.archive.keep(tx, at=at)
        return receipt


def keyset_digest(document: AttestationDocument) -> str:
    """The name of the keyset that a document vouches for."""
    return b64url_encode(hashlib.sha256(document.keyset.encode()).digest())
