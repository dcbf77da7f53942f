"""The proof that one entry is in the log, as a document that verifies by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloister import jose
from cloister.errors import EvidenceError, LogError
from cloister.jose.strict_json import load_object
from cloister.protocol.attest import AttestationDocument
from cloister.protocol.keyset import verify_keyset
from cloister.receipts.head import TreeHead, verify_head
from cloister.receipts.keeper import read_path
from cloister.receipts.merkle import leaf_hash, verify_inclusion

__all__ = ["VerifiedEntry", "prove_document", "verify_entry_proof"]

FORMAT: Final = "cloister-entry-proof"
VERSION: Final = 1
_MEMBERS: Final = {"index": int, "salt": str, "entry": str, "path": str, "head": str, "evidence": dict}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEntry:
    """An entry that is in the log as of a head."""

    index: int
    entry: Mapping[str, Any] = field(repr=False)
    head: TreeHead


def prove_document(proved: Mapping[str, Any]) -> dict[str, Any]:
    """Make the document from the result of `audit.prove`."""
    return {"format": FORMAT, "v": VERSION, **{name: proved.get(name) for name in _MEMBERS}}


def verify_entry_proof(document: Mapping[str, Any], *, deployment: str | None) -> VerifiedEntry:
    """Verify the document.

    Args:
        document: Its members, not verified.
        deployment: The deployment that is meant; None accepts any.

    Raises:
        LogError: It is malformed, of another deployment, or the entry is not in the log.
    """
    if document.get("format") != FORMAT or document.get("v") != VERSION:
        raise LogError("this is not the proof of an entry")
    if not all(type(document.get(name)) is kind for name, kind in _MEMBERS.items()):
        raise LogError("the proof of the entry is malformed")
    try:
        evidence = AttestationDocument.from_json(document["evidence"])
        keyset = verify_keyset(evidence.keyset, deployment=deployment)
        salt, raw = jose.b64url_decode(document["salt"]), document["entry"].encode()
        entry = load_object(raw)
    except (EvidenceError, ValueError):
        raise LogError("the proof of the entry is malformed, or of another deployment") from None
    head = verify_head(document["head"], keyset=keyset)
    leaf = leaf_hash(salt, raw)
    verify_inclusion(leaf, document["index"], head.size, read_path(document["path"]), head.root)
    return VerifiedEntry(index=document["index"], entry=entry, head=head)
