"""From the host's attestation document to a keyset that may be sealed to (PROTOCOL 4 and 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cloister import attestation, jose
from cloister.errors import AppraisalError, EvidenceError
from cloister.protocol.keyset import Keyset, staple_nonce, statement, verify_keyset

__all__ = [
    "AttestationDocument",
    "AttestationResult",
    "appraise_document",
    "appraise_staple",
    "not_noticed",
]

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_ENDORSEMENTS: Final = 16
NONCE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationDocument:
    """What a host answers to a challenge: evidence, what endorses it, and the keyset it vouches for."""

    format: str
    evidence: bytes
    keyset: str
    endorsements: tuple[bytes, ...] = ()
    collateral: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of the JSON form; bytes as base64url."""
        return {
            "format": self.format,
            "evidence": jose.b64url_encode(self.evidence),
            "keyset": self.keyset,
            "endorsements": [jose.b64url_encode(item) for item in self.endorsements],
            "collateral": None if self.collateral is None else jose.b64url_encode(self.collateral),
        }

    @classmethod
    def from_bytes(cls, unverified: bytes) -> AttestationDocument:
        """Read the JSON form.

        Raises:
            EvidenceError: It is too large or malformed.
        """
        if len(unverified) > MAX_DOCUMENT_BYTES:
            raise EvidenceError("the attestation document is too large")
        try:
            members = json.loads(unverified)
        except (ValueError, RecursionError):
            raise EvidenceError(
                "the attestation document is not JSON", hint="does CLOISTER_URL point at a Cloister host?"
            ) from None
        return cls.from_json(members)

    @classmethod
    def from_json(cls, members: Any) -> AttestationDocument:
        """Read the members of the JSON form.

        Raises:
            EvidenceError: It is malformed.
        """
        try:
            endorsements, collateral = members["endorsements"], members["collateral"]
            if len(endorsements) > MAX_ENDORSEMENTS:
                raise EvidenceError("the attestation document has too many endorsements")
            format_, keyset = members["format"], members["keyset"]
            if not isinstance(format_, str) or not isinstance(keyset, str):
                raise TypeError
            return cls(
                format=format_,
                evidence=jose.b64url_decode(members["evidence"]),
                keyset=keyset,
                endorsements=tuple(jose.b64url_decode(item) for item in endorsements),
                collateral=None if collateral is None else jose.b64url_decode(collateral),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise EvidenceError(
                "the attestation document is malformed", hint="does CLOISTER_URL point at a Cloister host?"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """Proof that appraisal passed; the only thing a client seals to."""

    keyset: Keyset
    environment: str
    appraised_at: datetime
    checks: tuple[str, ...]
    not_checked: tuple[str, ...]


def appraise_document(
    document: AttestationDocument,
    policy: attestation.AppraisalPolicy,
    *,
    nonce: bytes,
    now: float,
    jwks: bytes | None = None,
) -> AttestationResult:
    """Appraise a host's answer to a challenge.

    Args:
        document: The host's answer, unverified.
        policy: What the relying party accepts.
        nonce: The challenge that was sent.
        now: Epoch seconds.
        jwks: Keys of the token issuer, for the formats that are tokens.

    Raises:
        EvidenceError: Something is not genuine, not fresh or malformed.
        AppraisalError: It is genuine, but the policy does not accept it.
    """
    at = datetime.fromtimestamp(now, UTC)
    # (1) The keyset is signed by the deployment that the policy names.
    keyset = verify_keyset(document.keyset, deployment=policy.deployment)
    if not keyset.issued_at - _SKEW_SECONDS <= now < keyset.expires:
        raise EvidenceError("the keyset is not valid at this time", hint="check both clocks")
    # (2) The evidence is genuine.
    evidence = attestation.authenticate(
        document.evidence,
        format=attestation.format_named(document.format),
        at=at,
        endorsements=document.endorsements,
        collateral=document.collateral,
        trust_anchors=policy.trust_anchors,
        jwks=jwks,
    )
    # (3) It answers our challenge, speaks of this keyset, and says what the policy accepts.
    appraisal = attestation.appraise(evidence, policy, statement=statement(keyset, nonce), nonce=nonce, at=at)
    # (4) The configuration that was attested with the keys.
    policy.appraise_config(keyset.config)
    _require_same_environment(keyset.config, evidence.environment)
    # (5) Every machine that may be given the request keys is one we would talk to.
    for holder in keyset.holders:
        policy.appraise_holder(holder)
    pinned = () if policy.deployment else ("deployment: the policy names none, any is accepted",)
    return AttestationResult(
        keyset=keyset,
        environment=evidence.environment,
        appraised_at=at,
        checks=(*evidence.checks, *appraisal.checks, "keyset signature", "configuration", "holders"),
        not_checked=(
            *evidence.not_checked,
            *appraisal.not_checked,
            *pinned,
            *not_noticed(keyset.config),
        ),
    )


def appraise_staple(
    document: AttestationDocument, policy: attestation.AppraisalPolicy, *, now: float
) -> AttestationResult:
    """Appraise evidence stapled to a delivery or a receipt, offline.

    Freshness comes from the keyset's life, since stapled evidence answers no challenge.

    Raises:
        EvidenceError: Something is not genuine, not valid now or malformed.
        AppraisalError: It is genuine, but the policy does not accept it.
    """
    nonce = staple_nonce(verify_keyset(document.keyset, deployment=policy.deployment))
    return appraise_document(document, policy, nonce=nonce, now=now)


def not_noticed(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a host with this configuration cannot notice by itself (PROTOCOL 7)."""
    if config.get("anchor", "none") != "none":
        return ()
    return ("store: the host has no anchor; it does not notice a database rolled back while it was down",)


_SKEW_SECONDS: Final = 60


def _require_same_environment(config: Mapping[str, Any], environment: str) -> None:
    root = config.get("root")
    claimed = root.get("environment") if isinstance(root, dict) else None
    if environment not in {"test", claimed}:
        raise AppraisalError(
            "config.root.environment: the root key was born in another environment than this evidence",
            hint="a root made on simulated hardware stays there; run `cloister host init` inside the TEE",
        )
