"""AMD's certificate path, of exactly one known form: VCEK or VLEK, then ASK or ASVK, then ARK.

`cryptography`'s path verifier refuses AMD's RSA-PSS parameters (they spell out the default trailer),
so signatures are verified one by one and the form is checked here (ADR: amd-certificate-path).
Source: AMD 57230, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from cloister.attestation import der
from cloister.attestation.certificates import Path, refusing, require_valid_at
from cloister.errors import EvidenceError

__all__ = ["ChipCertificate", "amd_path", "common_name"]

_ARC: Final = "1.3.6.1.4.1.3704.1"
_TCB_PARTS: Final = {
    "bootloader": f"{_ARC}.3.1",
    "tee": f"{_ARC}.3.2",
    "snp": f"{_ARC}.3.3",
    "spl4": f"{_ARC}.3.4",
    "spl5": f"{_ARC}.3.5",
    "spl6": f"{_ARC}.3.6",
    "spl7": f"{_ARC}.3.7",
    "microcode": f"{_ARC}.3.8",
    "fmc": f"{_ARC}.3.9",
}
_PRODUCT_NAME: Final = f"{_ARC}.2"
_HARDWARE_ID: Final = f"{_ARC}.4"
_SUPPORTED_CRITICAL: Final = {x509.BasicConstraints.oid, x509.KeyUsage.oid}
_CA_KEY_BITS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipCertificate:
    """What a VCEK or VLEK says in AMD's extensions; still unverified when parsed.

    Attributes:
        product: Product line, such as `Milan`.
        tcb: Security patch levels by part; parts without an extension are missing.
        hardware_id: The chip, for a VCEK; None for a VLEK.
    """

    product: str
    tcb: dict[str, int]
    hardware_id: bytes | None

    @classmethod
    def parse(cls, certificate: x509.Certificate) -> ChipCertificate:
        """Read the extensions.

        Raises:
            EvidenceError: One is malformed or the product name is missing.
        """
        with refusing("chip certificate"):
            values = {
                extension.oid.dotted_string: extension.value.value
                for extension in certificate.extensions
                if isinstance(extension.value, x509.UnrecognizedExtension)
            }
            product = der.single(values[_PRODUCT_NAME], der.IA5_STRING).decode("ascii")
            hardware_id = values.get(_HARDWARE_ID)
            return cls(
                product=product.partition("-")[0],
                tcb={
                    part: der.integer(der.single(values[oid], der.INTEGER))
                    for part, oid in _TCB_PARTS.items()
                    if oid in values
                },
                hardware_id=None if hardware_id is None else _unwrap(hardware_id),
            )


def _unwrap(hardware_id: bytes) -> bytes:
    """AMD writes the identifier bare; some certificates wrap it as an OCTET STRING."""
    if len(hardware_id) in {8, 64}:
        return hardware_id
    return der.single(hardware_id, der.OCTET_STRING)


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name, or an empty string."""
    with refusing("certificate"):
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if len(names) == 1 else ""


def amd_path(
    leaf: x509.Certificate,
    untrusted: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    at: datetime,
) -> Path:
    """Validate the path of a chip certificate to a pinned ARK.

    Raises:
        EvidenceError: There is none of the known form that is valid at this time.
    """
    require_valid_at(leaf, at, "chip certificate")
    candidates = [
        (ask, ark)
        for ask in untrusted
        for ark in anchors
        if ask.subject == leaf.issuer
        and ark.subject == ask.issuer
        and _issued(ark, ark)
        and _issued(ask, ark)
    ]
    if not candidates:
        raise EvidenceError(
            "chip certificate: it reaches no AMD root (step: authenticate)",
            hint="pass AMD's ASK or ASVK certificate too, if the product is newer than this client",
        )
    for ask, ark in candidates:
        if _issued(leaf, ask):
            _require_form(leaf, ask, ark)
            require_valid_at(ask, at, "AMD intermediate certificate")
            require_valid_at(ark, at, "AMD root certificate")
            return Path(chain=(leaf, ask, ark))
    raise EvidenceError(
        "chip certificate: not signed by AMD's intermediate (step: authenticate)",
        hint="it was altered; fetch it again from AMD KDS",
    )


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether an issuer made this certificate, with RSA-PSS over SHA-384 (AMD 57230 section 1.5)."""
    scheme = certificate.signature_algorithm_parameters
    if (
        certificate.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS
        or not isinstance(scheme, padding.PSS)
        or not isinstance(certificate.signature_hash_algorithm, hashes.SHA384)
    ):
        return False
    try:
        with refusing("certificate"):
            certificate.verify_directly_issued_by(issuer)
    except EvidenceError:
        return False
    return True


def _require_form(leaf: x509.Certificate, ask: x509.Certificate, ark: x509.Certificate) -> None:
    with refusing("AMD certificate"):
        for authority in (ask, ark):
            key = authority.public_key()
            constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
            usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
            if not (
                isinstance(key, rsa.RSAPublicKey)
                and key.key_size == _CA_KEY_BITS
                and constraints.critical
                and constraints.value.ca
                and usage.value.key_cert_sign
            ):
                raise ValueError
        for certificate in (leaf, ask, ark):
            if any(e.critical and e.oid not in _SUPPORTED_CRITICAL for e in certificate.extensions):
                raise ValueError
        if any(isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in leaf.extensions):
            raise ValueError
