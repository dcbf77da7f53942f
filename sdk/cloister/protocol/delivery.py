"""Deliveries: calls from the enclave to another application, proven to come from it (PROTOCOL 9).

The HTTP body is `{"payload": ..., "cloister": {"delivery": JWS, "staple": attestation document}}`.
The JWS is made anew for every sending; `delivery_id` stays the same over all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import rfc8785

from cloister import attestation, jose
from cloister.errors import EvidenceError
from cloister.protocol.attest import AttestationDocument, AttestationResult, appraise_staple

__all__ = ["DELIVERY_TYP", "VerifiedDelivery", "payload_digest", "verify_delivery"]

DELIVERY_TYP: Final = "cloister-delivery+jwt"
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
MAX_LIFETIME_SECONDS: Final = 300
SKEW_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDelivery:
    """A delivery that was shown to come from an accepted enclave and to be meant for this endpoint."""

    delivery_id: str
    tenant: str
    function: str
    function_digest: str
    payload: Any = field(repr=False)
    attestation: AttestationResult


def payload_digest(payload: Any) -> str:
    """Base64url SHA-256 of the canonical payload; what the JWS binds."""
    return jose.b64url_encode(hashlib.sha256(rfc8785.dumps(payload)).digest())


def verify_delivery(
    body: bytes, policy: attestation.AppraisalPolicy, *, method: str, url: str, now: float
) -> VerifiedDelivery:
    """Show that a call comes from the enclave, offline.

    Args:
        body: The HTTP body, unverified.
        policy: Which enclave host is accepted.
        method: HTTP method of the call.
        url: The receiver's own public URL, scheme to path; never taken from the request's headers.
        now: Epoch seconds.

    Raises:
        EvidenceError: It is malformed, not fresh, not for this endpoint or not by the attested host.
        AppraisalError: It is by an enclave that the policy does not accept.
    """
    payload, token, staple = _parse(body)
    # (1) The host that signed is one the policy accepts.
    appraised = appraise_staple(AttestationDocument.from_json(staple), policy, now=now)
    # (2) Signed by a delivery key of its keyset.
    key = appraised.keyset.key("delivery", str(jose.parse_jws_header(token).get("kid")))
    claims = jose.verify_claims(token, key.jwk, typ=DELIVERY_TYP)
    # (3) By this keyset, now.
    issued_at, expires = claims.get("iat"), claims.get("exp")
    if (
        claims.get("deployment") != appraised.keyset.deployment
        or claims.get("keyset") != appraised.keyset.digest
    ):
        raise EvidenceError("the delivery names another keyset than the one stapled to it")
    if type(issued_at) is not int or type(expires) is not int or not key.valid_at(issued_at):
        raise EvidenceError("the delivery has no times, or times outside the life of its key")
    if not (
        0 < expires - issued_at <= MAX_LIFETIME_SECONDS
        and issued_at - SKEW_SECONDS <= now < expires + SKEW_SECONDS
    ):
        raise EvidenceError("the delivery is not fresh", hint="check both clocks; the host sends it again")
    # (4) For this endpoint, with this payload.
    parts = urlsplit(url)
    _require(claims, "aud", f"{parts.scheme}://{parts.netloc}")
    _require(claims, "htm", method.upper())
    _require(claims, "htu", url)
    _require(claims, "payload_digest", payload_digest(payload))
    return VerifiedDelivery(
        delivery_id=_text(claims, "delivery_id"),
        tenant=_text(claims, "tenant"),
        function=_text(claims, "function"),
        function_digest=_text(claims, "function_digest"),
        payload=payload,
        attestation=appraised,
    )


def _parse(body: bytes) -> tuple[Any, str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise EvidenceError("the delivery is too large")
    try:
        members = json.loads(body)
        payload, proof = members["payload"], members["cloister"]
        token, staple = proof["delivery"], proof["staple"]
        rfc8785.dumps(payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EvidenceError(
            "this is not a delivery", hint="only the enclave host calls this endpoint"
        ) from None
    if not isinstance(token, str):
        raise EvidenceError("this is not a delivery")
    return payload, token, staple


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise EvidenceError(f"the delivery has no {name}")
    return value


def _require(claims: Mapping[str, Any], name: str, expected: str) -> None:
    if not hmac.compare_digest(_text(claims, name).encode(), expected.encode()):
        raise EvidenceError(f"the delivery's {name} is not for this call")
