"""Statements signed by the deployment key (PROTOCOL 4).

The key is Ed25519 and derived from the root key. Its name, `deployment`, is the SHA-256 of its
public half, so a statement carries the public half and whoever knows the name can check it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import rfc8785

from cloister import jose
from cloister.errors import EvidenceError

__all__ = ["audience", "deployment_id", "deployment_of", "sign_as_deployment", "verify_as_deployment"]


def deployment_id(public_key: bytes) -> str:
    """Name of a deployment: base64url SHA-256 of the raw Ed25519 public key."""
    return jose.b64url_encode(hashlib.sha256(public_key).digest())


def audience(deployment: str) -> str:
    """The audience of tokens for a deployment, and for no other (PROTOCOL 4)."""
    return f"cloister:{deployment}"


def deployment_of(key: jose.Key) -> str:
    """Name of the deployment whose key this is."""
    return deployment_id(jose.b64url_decode(key.public().to_jwk()["x"]))


def sign_as_deployment(payload: Mapping[str, Any], key: jose.Key, *, typ: str) -> str:
    """Sign canonical JSON; the header's `x` is the public half of the deployment key."""
    return jose.sign_compact(
        rfc8785.dumps(dict(payload)), key, typ=typ, headers={"x": key.public().to_jwk()["x"]}
    )


def verify_as_deployment(token: str, *, typ: str, deployment: str | None) -> Mapping[str, Any]:
    """Check a statement of a deployment and return its members.

    Args:
        token: The compact JWS.
        typ: The kind of statement that is expected.
        deployment: The deployment that is meant. `None` accepts any, for callers that compare the
            member `deployment` of the result with something attested.

    Raises:
        EvidenceError: It is malformed, signed by another key, or names another deployment.
    """
    # (1) The key in the header is only a claim until its hash is the deployment.
    public = jose.parse_jws_header(token).get("x")
    if not isinstance(public, str):
        raise EvidenceError("the statement does not name its deployment key")
    try:
        named = deployment_id(jose.b64url_decode(public))
    except ValueError:
        raise EvidenceError("the statement's deployment key is malformed") from None
    if deployment is not None and not hmac.compare_digest(named, deployment):
        raise EvidenceError(
            "the statement belongs to another deployment",
            hint="a genuine image under somebody else's root key is not this service",
        )
    # (2) The signature.
    key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": public}
    payload = jose.verify_claims(token, key, typ=typ)
    # (3) The payload names the deployment that signed it.
    claimed = payload.get("deployment")
    if not isinstance(claimed, str) or not hmac.compare_digest(claimed, named):
        raise EvidenceError("the statement names another deployment than the one that signed it")
    return payload
