"""Intel DCAP quotes: version 3 and 4 (SGX), 4 and 5 (TDX), with ECDSA P-256 attestation keys.

Sources: "Intel SGX ECDSA Quote Library Reference", appendix A, and "Intel TDX DCAP Quoting Library API",
appendix A. The PCK certificate chain comes inside the quote (type 5) or among the endorsements.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.certificates import load_certificates, refusing
from cloister.attestation.reader import Reader
from cloister.errors import EvidenceError

__all__ = ["Quote", "SgxReport", "pck_leaf", "verify_p256"]

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
SGX: Final = 0x00
TDX: Final = 0x81
SGX_REPORT_BYTES: Final = 384
_TD_REPORT_BYTES: Final = {2: 584, 3: 648}
_SGX_BODY_TYPE: Final = 1
_VERSION_SGX_ONLY: Final = 3
_VERSION_WITH_BODY_TYPE: Final = 5
_ECDSA_P256: Final = 2
_INTEL_QE: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_PCK_CHAIN: Final = 5
_QE_REPORT_CERTIFICATION: Final = 6
_MAX_CERTIFICATION_BYTES: Final = 32 * 1024
_MAX_AUTH_BYTES: Final = 1024
_SCALAR_BYTES: Final = 32


def verify_p256(key: object, signature: bytes, message: bytes, what: str) -> None:
    """Verify a raw ECDSA signature (r || s) over SHA-256 under a P-256 key.

    Raises:
        EvidenceError: It does not verify.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EvidenceError(f"{what}: the key is not P-256 (step: authenticate)")
    if len(signature) != 2 * _SCALAR_BYTES:
        raise EvidenceError(f"{what}: not 64 bytes (step: parse)")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_SCALAR_BYTES], signature[_SCALAR_BYTES:]))
    try:
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise EvidenceError(f"{what}: does not verify (step: authenticate)") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxReport:
    """An SGX report body: of an application enclave, or of the quoting enclave."""

    raw: bytes
    cpu_svn: bytes
    misc_select: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes
    config_id: bytes
    config_svn: int
    isv_ext_prod_id: bytes
    isv_family_id: bytes

    @classmethod
    def parse(cls, raw: bytes) -> SgxReport:
        """Read exactly one report body."""
        reader = Reader(raw, "SGX report")
        cpu_svn, misc_select, _ = reader.take(16), reader.take(4), reader.take(12)
        isv_ext_prod_id, attributes = reader.take(16), reader.take(16)
        mr_enclave, _, mr_signer, _ = (reader.take(32) for _ in range(4))
        config_id = reader.take(64)
        isv_prod_id, isv_svn, config_svn = (reader.little(2) for _ in range(3))
        reader.take(42)
        isv_family_id, report_data = reader.take(16), reader.take(64)
        reader.finish()
        return cls(
            raw=raw,
            cpu_svn=cpu_svn,
            misc_select=misc_select,
            attributes=attributes,
            mr_enclave=mr_enclave,
            mr_signer=mr_signer,
            isv_prod_id=isv_prod_id,
            isv_svn=isv_svn,
            report_data=report_data,
            config_id=config_id,
            config_svn=config_svn,
            isv_ext_prod_id=isv_ext_prod_id,
            isv_family_id=isv_family_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed quote, not authenticated yet."""

    version: int
    tee: int
    body: bytes
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: SgxReport
    qe_signature: bytes
    qe_authentication: bytes
    embedded_chain: tuple[x509.Certificate, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Quote:
        """Read exactly one quote.

        Raises:
            EvidenceError: It is malformed, of an unknown version, or something follows it.
        """
        reader = Reader(raw, "quote")
        version, key_type = reader.little(2), reader.little(2)
        tee = reader.little(4)
        reader.take(4)
        vendor, _user_data = reader.take(16), reader.take(20)
        if key_type != _ECDSA_P256 or vendor != _INTEL_QE:
            raise EvidenceError("quote: not by Intel's ECDSA P-256 quoting enclave (step: parse)")
        body = reader.take(_body_bytes(version, tee, reader))
        signed = raw[: reader.position]
        section = Reader(reader.sized(4, limit=_MAX_CERTIFICATION_BYTES, order="little"), "quote signature")
        reader.finish()
        signature, attestation_key = section.take(64), section.take(64)
        if version > _VERSION_SGX_ONLY:
            if section.little(2) != _QE_REPORT_CERTIFICATION:
                raise EvidenceError("quote: of an unknown certification type (step: parse)")
            inner = section.sized(4, limit=_MAX_CERTIFICATION_BYTES, order="little")
            section.finish()
            section = Reader(inner, "quote certification data")
        qe_report, qe_signature = section.take(SGX_REPORT_BYTES), section.take(64)
        qe_authentication = section.sized(2, limit=_MAX_AUTH_BYTES, order="little")
        certification = section.little(2)
        data = section.sized(4, limit=_MAX_CERTIFICATION_BYTES, order="little")
        section.finish()
        return cls(
            version=version,
            tee=tee,
            body=body,
            signed=signed,
            signature=signature,
            attestation_key=attestation_key,
            qe_report=SgxReport.parse(qe_report),
            qe_signature=qe_signature,
            qe_authentication=qe_authentication,
            embedded_chain=_canonical_chain(data) if certification == _PCK_CHAIN else (),
        )

    def verify(self, pck: x509.Certificate) -> None:
        """Verify the three links from the body to the platform's certified key.

        Raises:
            EvidenceError: One does not verify.
        """
        with refusing("PCK certificate"):
            platform_key = pck.public_key()
        # (1) The platform vouches for the quoting enclave,
        verify_p256(platform_key, self.qe_signature, self.qe_report.raw, "signature of the quoting enclave")
        # (2) the quoting enclave for the attestation key,
        digest = hashlib.sha256(self.attestation_key + self.qe_authentication).digest()
        if not hmac.compare_digest(self.qe_report.report_data, digest.ljust(64, b"\0")):
            raise EvidenceError("attestation key: not the quoting enclave's (step: authenticate)")
        # (3) and the attestation key for the body.
        with refusing("attestation key"):
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + self.attestation_key)
        verify_p256(key, self.signature, self.signed, "signature of the quote")


def _body_bytes(version: int, tee: int, reader: Reader) -> int:
    """Length of the body that follows; reads the body descriptor of version 5."""
    if version == _VERSION_SGX_ONLY and tee == SGX:
        return SGX_REPORT_BYTES
    if version == _VERSION_SGX_ONLY + 1 and tee in {SGX, TDX}:
        return SGX_REPORT_BYTES if tee == SGX else _TD_REPORT_BYTES[2]
    if version == _VERSION_WITH_BODY_TYPE:
        body_type, size = reader.little(2), reader.little(4)
        expected = SGX_REPORT_BYTES if body_type == _SGX_BODY_TYPE else _TD_REPORT_BYTES.get(body_type, -1)
        if size == expected and tee == (SGX if body_type == _SGX_BODY_TYPE else TDX):
            return size
    raise EvidenceError("quote: of an unknown version or body type (step: parse)", hint="upgrade cloister")


def _canonical_chain(data: bytes) -> tuple[x509.Certificate, ...]:
    """The PEM chain of a quote, refused unless re-encoding gives the same bytes.

    PEM leaves room for bytes that no signature covers; a quote has one form here.
    """
    certificates = load_certificates([data])
    encoded = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    if data.removesuffix(b"\0").removesuffix(b"\n") + b"\n" != encoded:
        raise EvidenceError("PCK certificate chain: not canonical PEM (step: parse)")
    return tuple(certificates)


def pck_leaf(quote: Quote, endorsements: Sequence[x509.Certificate]) -> x509.Certificate:
    """The platform's certificate: the first of the quote's chain, or the one endorsed PCK certificate.

    Raises:
        EvidenceError: There is none.
    """
    if quote.embedded_chain:
        return quote.embedded_chain[0]
    for certificate in endorsements:
        if any(extension.oid.dotted_string == SGX_EXTENSION for extension in certificate.extensions):
            return certificate
    raise EvidenceError(
        "PCK certificate: neither in the quote nor among the endorsements (step: authenticate)",
        hint="pass the platform's PCK certificate chain with --endorsements",
    )
