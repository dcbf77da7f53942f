"""JSON web tokens by attestation services: RS256 only, read strictly (RFC 7515, RFC 8725)."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cloister.attestation.certificates import load_certificate, refusing
from cloister.attestation.encodings import any_base64, lower_hex
from cloister.errors import EvidenceError
from cloister.jose import b64url_decode, strict_json

__all__ = ["Token", "certificate_chain", "key_from_jwks", "text_values", "time_claim"]

MAX_TOKEN_BYTES: Final = 64 * 1024
_MAX_JWKS_BYTES: Final = 1024 * 1024
_MAX_KEYS: Final = 64
_MAX_CHAIN: Final = 8
_MAX_CERTIFICATE_BYTES: Final = 64 * 1024
"""Azure's signing certificates carry an SGX quote and its collateral."""
_MIN_RSA_BITS: Final = 2048
_REFUSED_HEADERS: Final = {"crit", "b64", "zip", "jwk"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A parsed token, not authenticated yet."""

    header: Mapping[str, Any]
    unverified_claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Token:
        """Read a compact JWS.

        Raises:
            EvidenceError: It is not one, or not RS256.
        """
        if len(raw) > MAX_TOKEN_BYTES:
            raise EvidenceError("token: too large (step: parse)")
        with refusing("token"):
            signed, _, signature = raw.rpartition(b".")
            first, second = signed.decode("ascii").split(".")
            header = strict_json.load_object(b64url_decode(first))
            claims = strict_json.load_object(b64url_decode(second))
            token = cls(
                header=header,
                unverified_claims=claims,
                signed=signed,
                signature=b64url_decode(signature.decode("ascii")),
            )
        # The algorithm is ours to choose: never "none", never HMAC with a public key.
        if header.get("alg") != "RS256":
            raise EvidenceError("alg: only RS256 is accepted (step: parse)")
        if header.get("typ", "JWT") != "JWT" or _REFUSED_HEADERS & header.keys():
            raise EvidenceError("token: a header is not accepted (step: parse)")
        return token

    def verify(self, key: object) -> Mapping[str, Any]:
        """Verify the signature and return the claims.

        Raises:
            EvidenceError: The key is not RSA of at least 2048 bits, or the signature is not its.
        """
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
            raise EvidenceError("signature: the issuer's key is not RSA of 2048 bits (step: authenticate)")
        try:
            key.verify(self.signature, self.signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise EvidenceError(
                "signature: the token was altered or not made by its issuer (step: authenticate)"
            ) from None
        return self.unverified_claims


def time_claim(claims: Mapping[str, Any], name: str) -> datetime:
    """A NumericDate claim.

    Raises:
        EvidenceError: It is absent or not a number.
    """
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise EvidenceError(f"{name}: absent or not a time (step: parse)")
    with refusing(name):
        return datetime.fromtimestamp(value, UTC)


def text_values(value: Any) -> tuple[bytes, ...]:
    """A string or a list of strings, as bytes; anything else is no value.

    Services echo nonces as text. Where the text is hex or base64 in canonical form, the bytes it stands
    for count as well.
    """
    values = value if isinstance(value, list) else [value]
    texts = [text for text in values if isinstance(text, str) and text]
    return tuple(form for text in texts for form in (text.encode(), *_decoded(text)))


def _decoded(text: str) -> Iterator[bytes]:
    for decode in (lower_hex, any_base64):
        with suppress(ValueError):
            if value := decode(text):
                yield value


def key_from_jwks(jwks: bytes | None, header: Mapping[str, Any]) -> object:
    """The one key of a JWK set that the token names.

    Raises:
        EvidenceError: No set was given, it is malformed, or no key or several have the name.
    """
    if jwks is None:
        raise EvidenceError(
            "jwks: the issuer's keys were not given (step: authenticate)",
            hint="pass --jwks, as published by the issuer",
        )
    if len(jwks) > _MAX_JWKS_BYTES:
        raise EvidenceError("jwks: too large (step: parse)")
    kid = header.get("kid")
    with refusing("jwks"):
        keys = strict_json.load_object(jwks)["keys"]
        if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
            raise ValueError
        named = [key for key in keys if isinstance(kid, str) and key.get("kid") == kid]
    if not named:
        raise EvidenceError(
            "kid: the issuer's keys do not hold it (step: authenticate)",
            hint="fetch the issuer's keys again; it rotates them",
        )
    with refusing("jwks"):
        found = [_rsa_key(key) for key in named]
        # Azure lists a key once for each certificate it has.
        if any(key.public_numbers() != found[0].public_numbers() for key in found):
            raise ValueError
        return found[0]


def _rsa_key(jwk: Mapping[str, Any]) -> rsa.RSAPublicKey:
    if jwk.get("kty") != "RSA" or jwk.get("use", "sig") != "sig" or jwk.get("alg", "RS256") != "RS256":
        raise ValueError
    found: list[rsa.RSAPublicKey] = []
    if "n" in jwk:
        modulus, exponent = (int.from_bytes(b64url_decode(jwk[name]), "big") for name in ("n", "e"))
        found.append(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    if "x5c" in jwk:
        key = certificate_chain(jwk["x5c"])[0].public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError
        found.append(key)
    if not found or any(key.public_numbers() != found[0].public_numbers() for key in found):
        raise ValueError
    return found[0]


def certificate_chain(x5c: Any) -> list[x509.Certificate]:
    """The certificates of an `x5c` member, leaf first (RFC 7515 section 4.1.6).

    Raises:
        EvidenceError: It is malformed.
    """
    with refusing("x5c"):
        if not isinstance(x5c, list) or not 0 < len(x5c) <= _MAX_CHAIN:
            raise ValueError
        return [
            load_certificate(base64.b64decode(der, validate=True), max_bytes=_MAX_CERTIFICATE_BYTES)
            for der in x5c
        ]
