"""A receipt with all that it takes to verify it offline: disclosures, evidence and the proof of its leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cloister import jose
from cloister.attestation import AppraisalPolicy
from cloister.errors import EvidenceError, LogError
from cloister.jose.strict_json import load_object
from cloister.protocol.attest import AttestationDocument, appraise_staple, not_noticed
from cloister.protocol.keyset import Keyset, verify_keyset
from cloister.receipts.head import TreeHead, verify_head
from cloister.receipts.keeper import read_path
from cloister.receipts.merkle import verify_inclusion
from cloister.receipts.receipt import Receipt, verify_receipt

__all__ = ["VerifiedBundle", "bundle", "load_bundle", "verify_bundle"]

FORMAT: Final = "cloister-receipt-bundle"
VERSION: Final = 1
MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBundle:
    """A receipt that was verified with everything beside it.

    Attributes:
        disclosed: What of its disclosures was in the bundle.
        index: The place of its leaf in the log, or None if the bundle has no proof.
        head: The head that the proof leads to.
        checks: What was verified.
        not_checked: What was NOT verified.
    """

    claims: Mapping[str, Any]
    disclosed: Mapping[str, Any] = field(repr=False)
    environment: str | None
    index: int | None
    head: TreeHead | None
    checks: tuple[str, ...]
    not_checked: tuple[str, ...]


def bundle(
    receipt: Receipt,
    *,
    evidence: Mapping[str, Any],
    log: Mapping[str, Any] | None,
    disclose: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Put a bundle together.

    Args:
        receipt: The receipt.
        evidence: The attestation document, from `receipt.evidence`.
        log: The proof of its leaf, from `receipt.proof`.
        disclose: Names of the disclosures that go along; None for all of them.

    Raises:
        EvidenceError: The receipt is malformed, or has no such disclosure.
    """
    named = dict(zip(receipt.unverified_disclosures, receipt.disclosures, strict=True))
    if unknown := set(disclose or ()) - named.keys():
        raise EvidenceError(
            f"the receipt has no disclosure {min(unknown)!r}", hint=f"it has {', '.join(named)}"
        )
    chosen = [text for name, text in named.items() if disclose is None or name in disclose]
    return {
        "format": FORMAT,
        "v": VERSION,
        "receipt": receipt.token,
        "disclosures": chosen,
        "evidence": dict(evidence),
        "log": None if log is None else {name: log[name] for name in ("index", "path", "head")},
    }


def load_bundle(raw: bytes) -> Mapping[str, Any]:
    """Read a bundle's members from JSON.

    Raises:
        EvidenceError: It is too large, or not JSON.
    """
    try:
        if len(raw) > MAX_BUNDLE_BYTES:
            raise ValueError("too large")
        return load_object(raw)
    except ValueError:
        raise EvidenceError("this is not a bundle of a receipt") from None


def verify_bundle(members: Mapping[str, Any], policy: AppraisalPolicy | None) -> VerifiedBundle:
    """Verify a receipt offline.

    Args:
        members: Of the bundle, not verified.
        policy: Which host is believed; None says that this was not looked at.

    Raises:
        EvidenceError: The receipt or the evidence is not genuine, or they do not belong together.
        AppraisalError: The host is genuine, but the policy does not accept it.
        LogError: The receipt's leaf is not in the log.
    """
    # (1) The keyset, by the deployment that is meant.
    token, disclosures, document = _members(members)
    keyset = verify_keyset(document.keyset, deployment=None if policy is None else policy.deployment)
    # (2) The receipt, by a receipt key of this keyset, within its life; and what is disclosed of it.
    receipt = verify_receipt(token, keyset=keyset, disclosures=disclosures)
    checks, not_checked = ["keyset signature", "receipt signature", "disclosures"], list[str]()
    # (3) The evidence for the keyset, as of when the receipt was issued.
    environment = None
    if policy is None:
        not_checked.append("host: no policy was given, its evidence was not looked at")
        not_checked += not_noticed(keyset.config)
    else:
        at = receipt.claims["iat"]
        result = appraise_staple(document, policy, now=at)
        environment = result.environment
        checks += [f"host, as of {datetime.fromtimestamp(at, UTC).isoformat()}", *result.checks]
        not_checked += result.not_checked
    # (4) Its leaf, in the log.
    index, head = _proven(members.get("log"), receipt.claims, keyset)
    if head is None:
        not_checked.append("log: the bundle has no proof that the act is in it")
    else:
        checks.append("leaf in the log")
        not_checked.append("log: other heads of it that somebody may have seen")
    return VerifiedBundle(
        claims=receipt.claims,
        disclosed=receipt.disclosed,
        environment=environment,
        index=index,
        head=head,
        checks=tuple(checks),
        not_checked=tuple(not_checked),
    )


def _members(members: Mapping[str, Any]) -> tuple[str, Sequence[str], AttestationDocument]:
    token, disclosures = members.get("receipt"), members.get("disclosures")
    if members.get("format") != FORMAT or members.get("v") != VERSION:
        raise EvidenceError("this is not a bundle of a receipt", hint="`cloister receipt export` writes one")
    if not isinstance(token, str) or not isinstance(disclosures, list):
        raise EvidenceError("the bundle is malformed")
    if not all(isinstance(item, str) for item in disclosures):
        raise EvidenceError("the bundle is malformed")
    return token, disclosures, AttestationDocument.from_json(members.get("evidence"))


def _proven(part: Any, claims: Mapping[str, Any], keyset: Keyset) -> tuple[int, TreeHead] | tuple[None, None]:
    if part is None:
        return None, None
    if not isinstance(part, dict) or not isinstance(part.get("head"), str):
        raise LogError("the log proof is malformed")
    index, leaf = part.get("index"), claims.get("leaf")
    try:
        found = jose.b64url_decode(leaf) if isinstance(leaf, str) else b""
    except ValueError:
        found = b""
    if type(index) is not int:
        raise LogError("the log proof is malformed")
    head = verify_head(part["head"], keyset=keyset)
    verify_inclusion(found, index, head.size, read_path(part.get("path")), head.root)
    return index, head
