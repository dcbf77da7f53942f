"""Compact JWS (RFC 7515) with EdDSA, ES256, ES384 and ML-DSA-65."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from cloister.errors import ConfigurationError, EvidenceError
from cloister.jose.base64url import b64url_decode, b64url_encode
from cloister.jose.keys import Key, as_key
from cloister.jose.strict_json import dump_compact, load_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.jose._signatures import Signature

__all__ = ["parse_jws_header", "sign_compact", "verify_claims", "verify_compact"]

SIGNATURES: Final = frozenset({"EdDSA", "ES256", "ES384", "ML-DSA-65"})
MAX_CHARS: Final = 4 * 1024 * 1024
MAX_HEADER_CHARS: Final = 32 * 1024  # room for a certificate chain in `x5c`
_REFUSED: Final = frozenset({"crit", "b64", "zip"})
_TEXT: Final = ("alg", "kid", "typ", "cty")
_OURS: Final = frozenset(_TEXT) | _REFUSED


def sign_compact(
    payload: bytes,
    jwk: Mapping[str, Any] | Key,
    *,
    typ: str,
    headers: Mapping[str, str | int] | None = None,
) -> str:
    """Sign a payload; `typ` says what kind of statement it is, so that none passes for another.

    Raises:
        ConfigurationError: The key is not a private signature key, or `headers` names a reserved member.
    """
    key = as_key(jwk)
    signature = _signature(key)
    kid = {} if key.kid is None else {"kid": key.kid}
    header: dict[str, str | int] = {"alg": key.alg, **kid, "typ": typ}
    for name, value in (headers or {}).items():
        if name in _OURS or not isinstance(value, (str, int)):
            raise ConfigurationError("headers: a member is reserved, or is neither string nor integer")
        header[name] = value
    signed = f"{b64url_encode(dump_compact(header))}.{b64url_encode(payload)}"
    return f"{signed}.{b64url_encode(signature.sign(signed.encode('ascii')))}"


def verify_compact(token: str, jwk: Mapping[str, Any] | Key, *, typ: str) -> bytes:
    """Verify a token under the one key it must be signed with, and return its payload.

    Raises:
        EvidenceError: The token is malformed, of another type or algorithm, or its signature is wrong.
        ConfigurationError: The key is not a signature key.
    """
    key = as_key(jwk)
    signature = _signature(key)
    protected, payload, raw_signature = _split(token)
    header = _parse_header(protected)
    if header.get("typ") != typ:
        raise EvidenceError("the JWS is of another typ")
    kid = header.get("kid")
    if header["alg"] != key.alg or (kid is not None and key.kid is not None and kid != key.kid):
        raise EvidenceError("the JWS names another key or algorithm")
    signature.verify(_decode(raw_signature), f"{protected}.{payload}".encode("ascii"))
    return _decode(payload)


def verify_claims(token: str, jwk: Mapping[str, Any] | Key, *, typ: str) -> dict[str, Any]:
    """Verify a token as `verify_compact` does, and return its payload's members.

    Raises:
        EvidenceError: As `verify_compact`, or the payload is not one JSON object.
    """
    try:
        return load_object(verify_compact(token, jwk, typ=typ))
    except ValueError:
        raise EvidenceError("the payload of the JWS is not a JSON object") from None


def parse_jws_header(token: str) -> dict[str, Any]:
    """Return the **unverified** header, to look up the one candidate key by its `kid`.

    Raises:
        EvidenceError: The token is malformed.
    """
    return _parse_header(_split(token)[0])


def _split(token: str) -> tuple[str, str, str]:
    if len(token) > MAX_CHARS or not token.isascii():
        raise EvidenceError("not a compact JWS", hint=f"ASCII, at most {MAX_CHARS} characters")
    parts = token.split(".", 3)
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 section 3.1
        raise EvidenceError("not a compact JWS", hint="compact serialization has three parts")
    return parts[0], parts[1], parts[2]


def _parse_header(protected: str) -> dict[str, Any]:
    if len(protected) > MAX_HEADER_CHARS:
        raise EvidenceError("not a compact JWS", hint="the header is too long")
    try:
        header = load_object(b64url_decode(protected))
    except ValueError:
        raise EvidenceError("not a compact JWS", hint="the header is not strict JSON") from None
    if not _REFUSED.isdisjoint(header):
        raise EvidenceError("the JWS header has crit, b64 or zip, which are refused")
    if "alg" not in header or not all(isinstance(header.get(name, ""), str) for name in _TEXT):
        raise EvidenceError("the JWS header lacks alg, or a member is not a string")
    return header


def _decode(part: str) -> bytes:
    try:
        return b64url_decode(part)
    except ValueError:
        raise EvidenceError("not a compact JWS", hint="a part is not canonical base64url") from None


def _signature(key: Key) -> Signature:
    if key.alg not in SIGNATURES:
        raise ConfigurationError(f"a {key.alg} key does not sign", hint="use a signature key")
    return cast("Signature", key.operations)
