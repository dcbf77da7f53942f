"""What a client certificate's key signs to prove who sends a request (PROTOCOL 6)."""

from __future__ import annotations

from typing import Final

from cloister.jose import b64url_encode

__all__ = ["IDENTITY_TYP", "proof_claims"]

IDENTITY_TYP: Final = "cloister-identity+jwt"


def proof_claims(*, kid: str, jti: str, digest: bytes) -> dict[str, str]:
    """The claims of the proof: the request's key, its identifier and `body_digest` of what it asks for."""
    return {"digest": b64url_encode(digest), "jti": jti, "kid": kid}
