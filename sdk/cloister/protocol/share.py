"""An operator's share on its way to a host that waits for enough of them (SPEC.md).

The host has no root key yet, so nothing that it says is signed by the deployment. What counts is its
evidence: it speaks of a key that was made in that enclave for this start, and the share is sealed to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import rfc8785

from cloister import attestation, jose
from cloister.errors import ConfigurationError, EvidenceError
from cloister.protocol.attest import MAX_DOCUMENT_BYTES, AttestationDocument

__all__ = ["ShareInvitation", "open_share", "seal_share", "share_statement"]

ALG: Final = "HPKE-10-KE"
PURPOSE: Final = "cloister.share.v1"
_TYP: Final = "cloister-share+jwe"
_INFO: Final = PURPOSE.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareInvitation:
    """What a waiting host answers to a challenge: its evidence, and the key to seal to.

    Attributes:
        jwk: Public half of the host's key; nothing vouches for it but the evidence.
        document: The evidence, which has no keyset.
    """

    jwk: Mapping[str, Any]
    document: AttestationDocument

    def to_bytes(self) -> bytes:
        """The JSON form."""
        return json.dumps({"jwk": dict(self.jwk), "document": self.document.to_json()}).encode()

    @classmethod
    def from_bytes(cls, unverified: bytes) -> ShareInvitation:
        """Read the JSON form.

        Raises:
            EvidenceError: It is too large or malformed.
        """
        try:
            if len(unverified) > MAX_DOCUMENT_BYTES:
                raise ValueError
            members = json.loads(unverified)
            jwk, document = members["jwk"], members["document"]
            if not isinstance(jwk, dict) or members.keys() != {"jwk", "document"}:
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise EvidenceError(
                "what the host answered is no invitation", hint="is it a host that waits for shares?"
            ) from None
        return cls(jwk=jwk, document=AttestationDocument.from_json(document))


def share_statement(*, jwk: Mapping[str, Any], nonce: bytes) -> bytes:
    """What the evidence of a waiting host speaks of."""
    members = {"key": jose.thumbprint(jwk), "nonce": jose.b64url_encode(nonce), "purpose": PURPOSE}
    return rfc8785.dumps(members)


def seal_share(
    invitation: ShareInvitation,
    policy: attestation.AppraisalPolicy,
    share: bytes,
    *,
    nonce: bytes,
    at: datetime,
    jwks: bytes | None = None,
) -> str:
    """Appraise a waiting host, and seal a share to it.

    Args:
        invitation: What it answered, unverified.
        policy: Which images may have the share. What a policy says of the configuration cannot be asked yet.
        share: The words of the share.
        nonce: The challenge that was sent.
        at: Now.
        jwks: Keys of a token issuer, for evidence that is a token.

    Raises:
        EvidenceError: The evidence is not genuine, or speaks of another key or challenge.
        AppraisalError: The policy does not accept what it says.
    """
    document = invitation.document
    # (1) A key of the one kind, before anything is made of it.
    try:
        key = jose.Key.from_jwk(invitation.jwk)
        statement = share_statement(jwk=invitation.jwk, nonce=nonce)
    except ConfigurationError:
        raise EvidenceError("the key of the waiting host is malformed") from None
    if key.alg != ALG or key.is_private:
        raise EvidenceError("the key of the waiting host is of another kind")
    # (2) The evidence is genuine, speaks of this key and challenge, and is acceptable.
    evidence = attestation.authenticate(
        document.evidence,
        format=attestation.format_named(document.format),
        at=at,
        endorsements=document.endorsements,
        collateral=document.collateral,
        trust_anchors=policy.trust_anchors,
        jwks=jwks,
    )
    attestation.appraise(evidence, policy, statement=statement, nonce=nonce, at=at)
    # (3) Only then.
    return jose.encrypt_compact(share, key, typ=_TYP, info=_INFO)


def open_share(sealed: str, key: jose.Key) -> bytes:
    """Open a share inside the host.

    Raises:
        OpenError: It is none, or was sealed to another key.
    """
    return jose.decrypt_compact(sealed, key, typ=_TYP, info=_INFO)
