"""The public half of a tenant's key, vouched for by the deployment (PROTOCOL 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloister import jose
from cloister.errors import EvidenceError
from cloister.protocol.deployment import deployment_of, sign_as_deployment, verify_as_deployment

__all__ = ["PublicKey", "sign_public_key", "verify_public_key"]

PUBLIC_KEY_TYP: Final = "cloister-key+jwt"
MAX_STATEMENT_CHARS: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key that the deployment says belongs to a tenant; what offline sealing needs."""

    tenant: str
    kid: str
    purpose: str
    jwk: Mapping[str, Any]
    not_before: int
    expires: int


def sign_public_key(key: PublicKey, *, deployment_key: jose.Key) -> str:
    """Vouch for a public key, as the deployment."""
    return sign_as_deployment(
        {
            "deployment": deployment_of(deployment_key),
            "tenant": key.tenant,
            "kid": key.kid,
            "purpose": key.purpose,
            "jwk": dict(key.jwk),
            "nbf": key.not_before,
            "exp": key.expires,
        },
        deployment_key,
        typ=PUBLIC_KEY_TYP,
    )


def verify_public_key(statement: str, *, deployment: str, tenant: str, now: float) -> PublicKey:
    """Check a deployment's word for a tenant's public key.

    Raises:
        EvidenceError: It is malformed, not valid now, or not about this deployment and tenant.
    """
    if len(statement) > MAX_STATEMENT_CHARS:
        raise EvidenceError("the key statement is too large")
    claims = verify_as_deployment(statement, typ=PUBLIC_KEY_TYP, deployment=deployment)
    try:
        key = PublicKey(
            tenant=str(claims["tenant"]),
            kid=str(claims["kid"]),
            purpose=str(claims["purpose"]),
            jwk=dict(claims["jwk"]),
            not_before=int(claims["nbf"]),
            expires=int(claims["exp"]),
        )
    except (KeyError, TypeError, ValueError):
        raise EvidenceError("the key statement is malformed") from None
    if key.tenant != tenant:
        raise EvidenceError("the key statement is about another tenant")
    if not key.not_before <= now < key.expires:
        raise EvidenceError("the key statement is not valid at this time", hint="fetch it again")
    return key
