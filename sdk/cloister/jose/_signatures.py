"""JWS signatures: `EdDSA` with Ed25519 (RFC 8037), `ES256` and `ES384` (RFC 7518), `ML-DSA-65` (RFC 9964)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from cloister.errors import ConfigurationError, EvidenceError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

__all__ = ["Ecdsa", "EdDsa", "MlDsa", "Signature"]

_HASHES: Final = {"ES256": hashes.SHA256, "ES384": hashes.SHA384}
_SCALAR_BYTES: Final = {"ES256": 32, "ES384": 48}


class Signature(Protocol):
    """Port: one key in its signature algorithm."""

    def sign(self, data: bytes) -> bytes:
        """Sign; raises `ConfigurationError` for a public half."""

    def verify(self, signature: bytes, data: bytes) -> None:
        """Verify; raises `EvidenceError`."""


@dataclass(frozen=True, slots=True)
class EdDsa:
    """Ed25519."""

    public: Ed25519PublicKey
    private: Ed25519PrivateKey | None = field(default=None, repr=False)

    def sign(self, data: bytes) -> bytes:
        if self.private is None:
            raise _public_half()
        return self.private.sign(data)

    def verify(self, signature: bytes, data: bytes) -> None:
        try:
            self.public.verify(signature, data)
        except InvalidSignature:
            raise EvidenceError("the signature does not verify") from None


@dataclass(frozen=True, slots=True)
class Ecdsa:
    """ECDSA whose signature is the two scalars side by side, not DER."""

    alg: str
    public: EllipticCurvePublicKey
    private: EllipticCurvePrivateKey | None = field(default=None, repr=False)

    def sign(self, data: bytes) -> bytes:
        if self.private is None:
            raise _public_half()
        size = _SCALAR_BYTES[self.alg]
        r, s = decode_dss_signature(self.private.sign(data, ECDSA(_HASHES[self.alg]())))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def verify(self, signature: bytes, data: bytes) -> None:
        size = _SCALAR_BYTES[self.alg]
        if len(signature) != 2 * size:
            raise EvidenceError("the signature does not verify")
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            self.public.verify(encode_dss_signature(r, s), data, ECDSA(_HASHES[self.alg]()))
        except InvalidSignature:
            raise EvidenceError("the signature does not verify") from None


@dataclass(frozen=True, slots=True)
class MlDsa:
    """ML-DSA-65 (FIPS 204) with an empty context."""

    public: MLDSA65PublicKey
    private: MLDSA65PrivateKey | None = field(default=None, repr=False)

    def sign(self, data: bytes) -> bytes:
        if self.private is None:
            raise _public_half()
        return self.private.sign(data)

    def verify(self, signature: bytes, data: bytes) -> None:
        try:
            self.public.verify(signature, data)
        except (InvalidSignature, ValueError):
            raise EvidenceError("the signature does not verify") from None


def _public_half() -> ConfigurationError:
    return ConfigurationError("this key is a public half", hint="sign with the private key")
