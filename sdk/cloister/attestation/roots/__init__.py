"""Pinned trust anchors, each with the fingerprint its vendor publishes (sources: SOURCES.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.certificates import DEVELOPMENT_EXTENSION, load_certificates
from cloister.errors import EvidenceError

if TYPE_CHECKING:
    from cloister.attestation.evidence import Environment

__all__ = ["Anchors", "amd_intermediates", "anchors"]

_PINNED: Final = {
    "aws_nitro": ("aws_nitro_g1",),
    "amd": ("amd_ark_milan", "amd_ark_genoa", "amd_ark_turin"),
    "intel": ("intel_sgx",),
    "google_ek_ak": ("google_ek_ak",),
    "google_confidential_space": ("google_confidential_space",),
}
_AMD_INTERMEDIATES: Final = ("amd_ask_milan", "amd_ask_genoa", "amd_asvk_milan", "amd_asvk_turin")

FINGERPRINTS: Final = {
    "aws_nitro_g1": "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
    "amd_ark_milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "amd_ark_genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "amd_ark_turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    "amd_ask_milan": "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
    "amd_ask_genoa": "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
    "amd_asvk_milan": "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
    "amd_asvk_turin": "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
    "intel_sgx": "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
    "google_ek_ak": "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",
    "google_confidential_space": "148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39",
    "cloister_development": "0756ab0b3487b476d7411b1645a40e3b1f1d578d3cb71f82243f3f51e25236ac",
}
"""SHA-256 of the DER form, hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """Certificates to end a path in, and the environment they vouch for."""

    certificates: tuple[x509.Certificate, ...]
    environment: Environment


def anchors(vendor: str, supplied: tuple[bytes, ...] | None) -> Anchors:
    """The pinned roots of a vendor, or the caller's own, which make the result `test`.

    Raises:
        EvidenceError: The caller's are not certificates, or are development roots.
    """
    if supplied is None:
        return Anchors(certificates=tuple(map(_pinned, _PINNED[vendor])), environment="hardware")
    certificates = tuple(load_certificates(supplied))
    if not certificates:
        raise EvidenceError("there is no certificate among the trust anchors", hint="pass PEM or DER roots")
    for certificate in certificates:
        if any(extension.oid == DEVELOPMENT_EXTENSION for extension in certificate.extensions):
            raise EvidenceError(
                "a development root is an anchor for simulated evidence only", hint="use the vendor's root"
            )
    return Anchors(certificates=certificates, environment="test")


def amd_intermediates() -> tuple[x509.Certificate, ...]:
    """AMD's published ASK and ASVK certificates: a convenience, trusted only through an ARK."""
    return tuple(map(_pinned, _AMD_INTERMEDIATES))


@cache
def _pinned(name: str) -> x509.Certificate:
    pem = resources.files(__name__).joinpath(f"{name}.pem").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    if digest != FINGERPRINTS[name]:
        raise EvidenceError(f"the pinned root {name} was altered", hint="reinstall cloister")
    return certificate
