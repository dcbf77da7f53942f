"""Identities from files: a token that somebody else keeps fresh, and a client certificate with its key."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from cloister.errors import ConfigurationError, IdentityError
from cloister.jose import b64url_encode
from cloister.protocol.identity_proof import IDENTITY_TYP, proof_claims

if TYPE_CHECKING:
    from cloister.protocol import RequestBinding

__all__ = ["Certificate", "TokenFile"]

MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_PEM_BYTES: Final = 64 * 1024
TOKEN_DOTS: Final = 2
# Bytes of one number of a raw ECDSA signature (RFC 7518 section 3.4), by curve.
_CURVES: Final[Mapping[str, tuple[str, int, hashes.HashAlgorithm]]] = {
    "secp256r1": ("ES256", 32, hashes.SHA256()),
    "secp384r1": ("ES384", 48, hashes.SHA384()),
}


class TokenFile:
    """A token that the platform writes into a file and renews there, as Kubernetes and CI systems do.

    The file is read for each request, so a renewed token is used at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (the platform chose the audience)
        """The credential's members.

        Raises:
            IdentityError: The file cannot be read or holds no token.
        """
        try:
            text = self._path.read_bytes()[: MAX_TOKEN_BYTES + 1].decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise IdentityError("the token file cannot be read", hint="set CLOISTER_TOKEN_FILE") from None
        if text.count(".") != TOKEN_DOTS or len(text) > MAX_TOKEN_BYTES:
            raise IdentityError("the token file holds no token", hint="set CLOISTER_TOKEN_FILE")
        return {"type": "oidc", "value": text}

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"


class Certificate:
    """A client certificate whose key signs every request (PROTOCOL 6), wherever TLS ends.

    Args:
        chain: PEM, the client's own certificate first.
        key: PEM of its private key: P-256, P-384, Ed25519, or RSA of 2048 bits or more.

    Raises:
        ConfigurationError: They cannot be read, or do not belong together.
    """

    def __init__(self, *, chain: bytes, key: bytes) -> None:
        refused = ConfigurationError(
            "the client certificate or its key cannot be used",
            hint="PEM: the certificate with its chain, and its P-256, P-384, Ed25519 or RSA key",
        )
        if max(len(chain), len(key)) > MAX_PEM_BYTES:
            raise refused
        try:
            certificates = load_pem_x509_certificates(chain)
            self._key = load_pem_private_key(key, password=None)
            belongs = self._key.public_key() == certificates[0].public_key()
        except (ValueError, TypeError):
            raise refused from None
        if not belongs:
            raise refused
        self._chain = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in certificates]
        self._algorithm = self._algorithm_of()
        if not self._algorithm:
            raise refused

    @classmethod
    def from_files(cls, chain: Path, key: Path) -> Certificate:
        """Read both files.

        Raises:
            ConfigurationError: They cannot be read, or do not belong together.
        """
        try:
            return cls(chain=chain.read_bytes(), key=key.read_bytes())
        except OSError:
            raise ConfigurationError(
                "the client certificate or its key cannot be read",
                hint="set CLOISTER_CERTIFICATE_FILE and CLOISTER_CERTIFICATE_KEY_FILE",
            ) from None

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (the request's key is the deployment's)
        """The credential's members, signed over this request."""
        header = {"alg": self._algorithm, "typ": IDENTITY_TYP}
        claims = proof_claims(kid=request.kid, jti=request.jti, digest=request.digest())
        signed = ".".join(b64url_encode(json.dumps(part).encode()) for part in (header, claims))
        proof = f"{signed}.{b64url_encode(self._sign(signed.encode()))}"
        return {"type": "mtls", "chain": self._chain, "jws": proof}

    def _algorithm_of(self) -> str:
        match self._key:
            case EllipticCurvePrivateKey() as key if key.curve.name in _CURVES:
                return _CURVES[key.curve.name][0]
            case Ed25519PrivateKey():
                return "EdDSA"
            case RSAPrivateKey():
                return "PS256"
            case _:
                return ""

    def _sign(self, data: bytes) -> bytes:
        match self._key:
            case EllipticCurvePrivateKey() as key:
                _name, size, digest = _CURVES[key.curve.name]
                numbers = utils.decode_dss_signature(key.sign(data, ECDSA(digest)))
                return b"".join(number.to_bytes(size, "big") for number in numbers)
            case Ed25519PrivateKey() as key:
                return key.sign(data)
            case RSAPrivateKey() as key:
                salt = hashlib.sha256().digest_size
                pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=salt)
                return key.sign(data, pss, hashes.SHA256())
            case _:  # pragma: no cover (refused when it was read)
                raise AssertionError

    def __repr__(self) -> str:
        return "Certificate(<hidden>)"
