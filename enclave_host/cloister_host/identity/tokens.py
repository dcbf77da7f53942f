"""OIDC workload tokens, verified without I/O (RFC 7519, RFC 8725, OpenID Connect Core 3.1.3.7).

`UnverifiedToken.parse` reads just enough to know whose keys to ask; nothing else is believed before
`verify`, and nothing of a token is ever repeated in an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloister.errors import IdentityError
from cloister.jose import b64url_decode, strict_json
from cloister_host.identity.jwks import ALGORITHMS, MAX_KID_CHARS, KeySet

__all__ = ["MAX_TOKEN_CHARS", "SKEW_SECONDS", "UnverifiedToken", "check_claims"]

MAX_TOKEN_CHARS: Final = 16 * 1024
MAX_ISSUER_CHARS: Final = 512
SKEW_SECONDS: Final = 60
_PARTS: Final = 3
# `x5t` only names a certificate, and is not looked at. A header that brings a key, names a place to fetch
# one from, or asks for processing of its own is refused with its token.
_KNOWN_HEADERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_TYPES: Final = frozenset({"jwt", "at+jwt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """A token that has the form of one: whose it says it is, and under which key."""

    algorithm: str
    kid: str
    issuer: str
    unverified_claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> UnverifiedToken:
        """Read a compact JWS of JSON claims.

        Raises:
            IdentityError: It is not one, or its header wants something else than a plain verification.
        """
        parts = text.split(".") if len(text) <= MAX_TOKEN_CHARS else []
        if len(parts) != _PARTS:
            raise IdentityError("this is not a token")
        try:
            header = strict_json.load_object(b64url_decode(parts[0]))
            claims = strict_json.load_object(b64url_decode(parts[1]))
            signature = b64url_decode(parts[2])
        except ValueError:
            raise IdentityError("this is not a token") from None
        algorithm, kid, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
        kind = header.get("typ", "JWT")
        # (1) The algorithm is on our list before any key is looked at: never `none`, never a MAC.
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise IdentityError("the token's algorithm is not accepted")
        # (2) No header that could choose the key, or change what is verified.
        if header.keys() - _KNOWN_HEADERS or not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise IdentityError("a header of the token is not accepted")
        if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
            raise IdentityError("the token does not name its key")
        if not isinstance(issuer, str) or not 0 < len(issuer) <= MAX_ISSUER_CHARS:
            raise IdentityError("the token does not name its issuer")
        return cls(
            algorithm=algorithm,
            kid=kid,
            issuer=issuer,
            unverified_claims=claims,
            signed=f"{parts[0]}.{parts[1]}".encode("ascii"),
            signature=signature,
        )

    def verify(self, keys: KeySet, *, algorithms: Collection[str]) -> Mapping[str, Any]:
        """Verify the signature by the one key that is named; the claims are genuine then, and no more.

        Raises:
            IdentityError: The issuer has no such key, uses it for other algorithms, or did not sign this.
        """
        key = keys.keys.get(self.kid)
        if key is None or self.algorithm not in algorithms:
            raise IdentityError("the token's key is not one of its issuer")
        if not key.verifies(self.algorithm, self.signed, self.signature):
            raise IdentityError("the token was not signed by its issuer")
        return self.unverified_claims


def check_claims(claims: Mapping[str, Any], *, audience: str, now: float, max_lifetime_seconds: int) -> None:
    """Check that genuine claims are meant for us, and for now.

    Args:
        claims: From `UnverifiedToken.verify`.
        audience: The only one accepted; a token that others accept too is not.
        now: Epoch seconds.
        max_lifetime_seconds: Most that may lie between `iat` and `exp`.

    Raises:
        IdentityError: It is for somebody else, expired, from the future or lives too long.
    """
    # (1) For this deployment alone.
    if claims.get("aud") not in (audience, [audience]):
        raise IdentityError("the token is not for this deployment alone")
    # (2) About somebody.
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise IdentityError("the token does not say whom it is about")
    # (3) Times. A token without them would live for ever.
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    starts = _time(claims, "nbf") if "nbf" in claims else issued
    if not issued < expires <= issued + max_lifetime_seconds:
        raise IdentityError("the token lives too long")
    if max(issued, starts) > now + SKEW_SECONDS:
        raise IdentityError("the token is from the future")
    if expires <= now - SKEW_SECONDS:
        raise IdentityError("the token has expired")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    # NumericDate: a number, not a boolean; beyond 2^53 it has no exact value.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        raise IdentityError("a time of the token is missing or malformed")
    return value
