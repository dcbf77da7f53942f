"""Google Confidential Space tokens: OIDC (keys passed in) and PKI (chain to the pinned root).

Source: Google, "Confidential Space: attestation token claims" and "PKI attestation tokens".
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cloister.attestation.authenticate import Support
from cloister.attestation.certificates import check_revocation, load_endorsements, verify_path
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.tokens import (
    Token,
    certificate_chain,
    key_from_jwks,
    text_values,
    time_claim,
)
from cloister.attestation.roots import anchors
from cloister.errors import EvidenceError

__all__ = ["ISSUER", "authenticate"]

ISSUER: Final = "https://confidentialcomputing.googleapis.com"
_SOFTWARE: Final = "CONFIDENTIAL_SPACE"
_NO_DEBUG: Final = "disabled-since-boot"
_SHIELDED: Final = "GCP_SHIELDED_VM"


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a token, under a chain to the pinned root or under the issuer's keys.

    Raises:
        EvidenceError: It is not genuine, or not a Confidential Space token.
    """
    token = Token.parse(raw)
    not_checked: list[str] = []
    # (1) The signature.
    if "x5c" in token.header:
        trusted = anchors("google_confidential_space", support.trust_anchors)
        chain = certificate_chain(token.header["x5c"])
        path = verify_path(chain[0], chain[1:], trusted.certificates, at=at, what="x5c")
        crls = load_endorsements(support.endorsements).crls
        if not check_revocation(path.chain, crls, at=at):
            not_checked.append("revocation: no list was given for every Google certificate")
        claims = token.verify(chain[0].public_key())
        environment, source = trusted.environment, "certificate path to the Confidential Space root"
        not_before = max(path.not_before, time_claim(claims, "nbf"))
        not_after = min(path.not_after, time_claim(claims, "exp"))
    else:
        claims = token.verify(key_from_jwks(support.jwks, token.header))
        environment, source = ("hardware" if support.trust_anchors is None else "test"), "key named by kid"
        not_before, not_after = time_claim(claims, "nbf"), time_claim(claims, "exp")
        not_checked.append(f"jwks: taken from the caller as the keys of {ISSUER}")
    # (2) Issuer and software.
    if claims.get("iss") != ISSUER:
        raise EvidenceError("iss: not the Confidential Space attestation service (step: authenticate)")
    if claims.get("swname") != _SOFTWARE:
        raise EvidenceError("swname: not a Confidential Space image (step: authenticate)")
    if claims.get("hwmodel") == _SHIELDED:
        not_checked.append("isolation: a shielded VM is attested, not a TEE")
    return AuthenticEvidence(
        format=Format.GCP_CONFIDENTIAL_SPACE,
        environment=environment,
        claims=claims,
        binding={"nonce": text_values(claims.get("eat_nonce"))},
        debug=claims.get("dbgstat") != _NO_DEBUG,
        issued_at=time_claim(claims, "iat"),
        not_before=not_before,
        not_after=not_after,
        checks=(source, "RS256 signature", "issuer", "token life"),
        not_checked=tuple(not_checked),
    )
