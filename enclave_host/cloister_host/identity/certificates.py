"""Client certificates: a chain to the tenant's own authority, and proof that its key made this request.

TLS may end at a gateway, so the proof is in the body (PROTOCOL 6): a JWS by the certificate's key over the
request key's name, the request's identifier and the digest of all that it asks for. It fits no other request.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from cloister.attestation.certificates import load_certificate, load_certificates
from cloister.errors import ConfigurationError, EvidenceError, IdentityError
from cloister.jose import b64url_decode, strict_json
from cloister.protocol.identity_proof import IDENTITY_TYP, proof_claims
from cloister_host.identity.jwks import IssuerKey

__all__ = ["MAX_CHAIN", "load_authority", "verify_chain", "verify_proof"]

MAX_CHAIN: Final = 4
MAX_CERTIFICATE_CHARS: Final = 16 * 1024
MAX_AUTHORITY_CHARS: Final = 64 * 1024
MAX_AUTHORITIES: Final = 16
MAX_PROOF_CHARS: Final = 4096
PROOF_ALGORITHMS: Final = frozenset({"PS256", "ES256", "ES384", "EdDSA"})
_PARTS: Final = 3
# What reading a hostile certificate's fields raises.
MALFORMED: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def load_authority(pem: str) -> tuple[x509.Certificate, ...]:
    """Read the certificates that a tenant trusts for its clients.

    Raises:
        ConfigurationError: They are no certificates of an authority.
    """
    refused = ConfigurationError(
        "these are no certificates of an authority",
        hint=f"PEM, 1 to {MAX_AUTHORITIES} certificates with basicConstraints CA:TRUE",
    )
    if len(pem) > MAX_AUTHORITY_CHARS:
        raise refused
    try:
        found = tuple(load_certificates([pem.encode("ascii")]))
        constraints = [one.extensions.get_extension_for_class(x509.BasicConstraints) for one in found]
    except (EvidenceError, *MALFORMED, x509.ExtensionNotFound):
        raise refused from None
    if not 0 < len(found) <= MAX_AUTHORITIES or not all(one.value.ca for one in constraints):
        raise refused
    return found


_authority = lru_cache(maxsize=256)(load_authority)


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """A certificate of a client whose chain leads to the authority; not yet that the client is here."""

    claims: Mapping[str, Any]
    key: Any


def verify_chain(chain: Sequence[str], authority: str, *, now: float) -> VerifiedCertificate:
    """Verify a client's chain (RFC 5280, by `cryptography.x509.verification`).

    Args:
        chain: Base64 DER, the client's own certificate first (as `x5c` in RFC 7515).
        authority: PEM of the trusted authority, registered by the tenant.
        now: Epoch seconds.

    Returns:
        The claims a binding can ask for: `sub` (its one subject alternative name, as `uri:`, `dns:` or
        `email:`), `subject`, `serial` and `spki_sha256`.

    Raises:
        IdentityError: It does not lead there, is not for clients, not valid now, or names several subjects.
    """
    refused = IdentityError("the client certificate was not accepted")
    if not 0 < len(chain) <= MAX_CHAIN or any(len(one) > MAX_CERTIFICATE_CHARS for one in chain):
        raise refused
    try:
        leaf, *others = [load_certificate(base64.b64decode(one, validate=True)) for one in chain]
        verifier = (
            PolicyBuilder()
            .store(Store(list(_authority(authority))))
            .time(dt.datetime.fromtimestamp(now, dt.UTC))
            .max_chain_depth(MAX_CHAIN)
            .build_client_verifier()
        )
        verified = verifier.verify(leaf, others)
        subjects = [*map(_subject, verified.subjects or ())]
        names = {
            "subject": leaf.subject.rfc4514_string(),
            "serial": f"{leaf.serial_number:x}",
            "spki_sha256": _spki(leaf),
        }
    except (EvidenceError, *MALFORMED, VerificationError):
        raise refused from None
    # Which of several names is meant would be the client's choice.
    if len(subjects) != 1 or subjects[0] is None:
        raise refused
    return VerifiedCertificate({"sub": subjects[0], **names}, leaf.public_key())


def verify_proof(proof: str, certificate: VerifiedCertificate, *, kid: str, jti: str, digest: bytes) -> None:
    """Verify that the certificate's key signed this very request.

    Raises:
        IdentityError: It did not.
    """
    refused = IdentityError("the certificate's key did not sign this request")
    parts = proof.split(".") if len(proof) <= MAX_PROOF_CHARS else []
    if len(parts) != _PARTS:
        raise refused
    try:
        header, claims = (strict_json.load_object(b64url_decode(part)) for part in parts[:2])
        signature = b64url_decode(parts[2])
        key = IssuerKey.of(certificate.key)
    except ValueError:
        raise refused from None
    algorithm = header.get("alg")
    if header != {"alg": algorithm, "typ": IDENTITY_TYP} or algorithm not in PROOF_ALGORITHMS:
        raise refused
    signed = f"{parts[0]}.{parts[1]}".encode("ascii")
    if not key.verifies(algorithm, signed, signature):
        raise refused
    if claims != proof_claims(kid=kid, jti=jti, digest=digest):
        raise refused


def _subject(name: x509.GeneralName) -> str | None:
    match name:
        case x509.UniformResourceIdentifier():
            return f"uri:{name.value}"
        case x509.DNSName():
            return f"dns:{name.value}"
        case x509.RFC822Name():
            return f"email:{name.value}"
        case _:
            return None


def _spki(certificate: x509.Certificate) -> str:
    digest = Hash(SHA256())
    digest.update(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()
