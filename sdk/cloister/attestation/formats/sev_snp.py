"""AMD SEV-SNP attestation reports, versions 2, 3 and 5 (AMD 56860, "SEV-SNP Firmware ABI", section 7.3).

The evidence is the report, 1184 bytes, optionally followed by the certificate table that the host
hands to guests (GHCB specification, section 4.1.8.1), as configfs-tsm gives it in `auxblob`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from cloister.attestation.authenticate import Support
from cloister.attestation.certificates import check_revocation, load_endorsements
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.amd_certificates import ChipCertificate, amd_path, common_name
from cloister.attestation.reader import Reader
from cloister.attestation.roots import Anchors, amd_intermediates, anchors
from cloister.errors import EvidenceError

__all__ = ["LAYOUTS", "REPORT_BYTES", "Report", "authenticate", "authenticate_report"]

REPORT_BYTES: Final = 1184
_SIGNED_BYTES: Final = 0x2A0
_COMPONENT_BYTES: Final = 72
_SCALAR_BYTES: Final = 48
_ECDSA_P384_SHA384: Final = 1
_VERSIONS: Final = (2, 3, 4, 5)
_VERSION_WITH_CPUID: Final = 3
_VERSION_WITH_MITIGATIONS: Final = 5
_MAX_TABLE_ENTRIES: Final = 16
_SIGNERS: Final = {0: "SEV-VCEK", 1: "SEV-VLEK"}

# Byte of the TCB version that holds each part (AMD 56860, table "TCB_VERSION").
_LAYOUT: Final = {
    "bootloader": 0,
    "tee": 1,
    "spl4": 2,
    "spl5": 3,
    "spl6": 4,
    "spl7": 5,
    "snp": 6,
    "microcode": 7,
}
_TURIN_LAYOUT: Final = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
LAYOUTS: Final[Mapping[str, Mapping[str, int]]] = {
    "Milan": _LAYOUT,
    "Genoa": _LAYOUT,
    "Turin": _TURIN_LAYOUT,
}
_OPTIONAL_PARTS: Final = {"spl4", "spl5", "spl6", "spl7"}
_POLICY_BITS: Final = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl_allow": 21,
    "mem_aes_256_xts": 22,
    "rapl_disabled": 23,
    "ciphertext_hiding": 24,
    "page_swap_disabled": 25,
}
_POLICY_RESERVED_ONE: Final = 17
_PLATFORM_BITS: Final = {
    "smt_enabled": 0,
    "tsme_enabled": 1,
    "ecc_enabled": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding_enabled": 4,
    "alias_check_complete": 5,
    "tio_enabled": 7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed report, not authenticated yet."""

    signed: bytes
    signature: bytes
    version: int
    signer: str
    product: str | None
    policy: int
    reported_tcb: bytes
    chip_id: bytes
    report_data: bytes
    claims: Mapping[str, Any]
    tcbs: Mapping[str, bytes]

    @classmethod
    def parse(cls, raw: bytes) -> Report:
        """Read exactly one report.

        Raises:
            EvidenceError: It is not a report of a known version.
        """
        if len(raw) != REPORT_BYTES:
            raise EvidenceError(f"report: not {REPORT_BYTES} bytes (step: parse)")
        reader = Reader(raw, "report")
        version, guest_svn, policy = reader.little(4), reader.little(4), reader.little(8)
        if version not in _VERSIONS:
            raise EvidenceError("version: of the report is unknown (step: parse)", hint="upgrade cloister")
        family_id, image_id = reader.take(16), reader.take(16)
        vmpl, algorithm, current_tcb = reader.little(4), reader.little(4), reader.take(8)
        platform_info, key_info, _reserved = reader.little(8), reader.little(4), reader.take(4)
        report_data, measurement, host_data = reader.take(64), reader.take(48), reader.take(32)
        id_key_digest, author_key_digest = reader.take(48), reader.take(48)
        report_id, report_id_ma, reported_tcb = reader.take(32), reader.take(32), reader.take(8)
        cpuid = reader.take(3)
        reader.take(21)
        chip_id, committed_tcb = reader.take(64), reader.take(8)
        current_version, committed_version = reader.take(4), reader.take(4)
        launch_tcb = reader.take(8)
        launch_mitigations, current_mitigations = reader.little(8), reader.little(8)
        if algorithm != _ECDSA_P384_SHA384:
            raise EvidenceError("signature: its algorithm is not ECDSA P-384 with SHA-384 (step: parse)")
        signer = _SIGNERS.get(key_info >> 2 & 7)
        if signer is None:
            raise EvidenceError("key_info: the report is not signed by a VCEK or VLEK (step: parse)")
        if not policy >> _POLICY_RESERVED_ONE & 1:
            raise EvidenceError("policy: a reserved bit is not one (step: parse)")
        claims: dict[str, Any] = {
            "version": version,
            "guest_svn": guest_svn,
            "policy": {name: bool(policy >> bit & 1) for name, bit in _POLICY_BITS.items()}
            | {"abi_major": policy >> 8 & 0xFF, "abi_minor": policy & 0xFF},
            "family_id": family_id.hex(),
            "image_id": image_id.hex(),
            "vmpl": vmpl,
            "platform": {name: bool(platform_info >> bit & 1) for name, bit in _PLATFORM_BITS.items()},
            "author_key": bool(key_info & 1),
            "report_data": report_data.hex(),
            "measurement": measurement.hex(),
            "host_data": host_data.hex(),
            "id_key_digest": id_key_digest.hex(),
            "author_key_digest": author_key_digest.hex(),
            "report_id": report_id.hex(),
            "report_id_ma": report_id_ma.hex(),
            "chip_id": chip_id.hex(),
            "current_version": {
                "build": current_version[0],
                "minor": current_version[1],
                "major": current_version[2],
            },
            "committed_version": {
                "build": committed_version[0],
                "minor": committed_version[1],
                "major": committed_version[2],
            },
            "signing_key": signer.removeprefix("SEV-").lower(),
        }
        if version >= _VERSION_WITH_MITIGATIONS:
            claims |= {"launch_mit_vector": launch_mitigations, "current_mit_vector": current_mitigations}
        return cls(
            signed=raw[:_SIGNED_BYTES],
            signature=raw[_SIGNED_BYTES:],
            version=version,
            signer=signer,
            product=_product(cpuid[0], cpuid[1]) if version >= _VERSION_WITH_CPUID else None,
            policy=policy,
            reported_tcb=reported_tcb,
            chip_id=chip_id,
            report_data=report_data,
            claims=claims,
            tcbs={
                "reported_tcb": reported_tcb,
                "current_tcb": current_tcb,
                "committed_tcb": committed_tcb,
                "launch_tcb": launch_tcb,
            },
        )

    def verify(self, key: object) -> None:
        """Verify the signature with the chip's key.

        Raises:
            EvidenceError: It does not verify, or its unsigned padding is not zero.
        """
        r, s = (self.signature[start : start + _COMPONENT_BYTES] for start in (0, _COMPONENT_BYTES))
        if any(r[_SCALAR_BYTES:]) or any(s[_SCALAR_BYTES:]) or any(self.signature[2 * _COMPONENT_BYTES :]):
            raise EvidenceError("signature: its padding is not zero (step: parse)")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise EvidenceError("signature: the chip's key is not P-384 (step: authenticate)")
        signature = utils.encode_dss_signature(int.from_bytes(r, "little"), int.from_bytes(s, "little"))
        try:
            key.verify(signature, self.signed, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            raise EvidenceError(
                "signature: the report was altered or is another chip's (step: authenticate)",
                hint="pass the VCEK or VLEK of the chip and TCB that the report names",
            ) from None


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a report, with the chip's certificate among the endorsements or in its table.

    Raises:
        EvidenceError: It is not genuine.
    """
    report, table = raw[:REPORT_BYTES], raw[REPORT_BYTES:]
    extra = _certificate_table(table) if table else ()
    trusted = anchors("amd", support.trust_anchors)
    return authenticate_report(report, (*support.endorsements, *extra), trusted, at=at)


def authenticate_report(
    raw: bytes, endorsements: Sequence[bytes], trusted: Anchors, *, at: datetime
) -> AuthenticEvidence:
    """Authenticate exactly one report.

    Raises:
        EvidenceError: It is not genuine.
    """
    # (1) Shape.
    report = Report.parse(raw)
    loaded = load_endorsements(endorsements)
    # (2) The certificate of the key that signed it.
    leaves = [certificate for certificate in loaded.certificates if common_name(certificate) == report.signer]
    refusal = EvidenceError(
        f"chip certificate: no {report.signer} was given (step: authenticate)",
        hint="pass it with --endorsements, or let the host staple it: `cloister evidence fetch`",
    )
    for leaf in leaves:
        try:
            return _authenticate_with(report, leaf, loaded.certificates, loaded.crls, trusted, at=at)
        except EvidenceError as error:
            refusal = error
    raise refusal


def _authenticate_with(
    report: Report,
    leaf: x509.Certificate,
    certificates: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList],
    trusted: Anchors,
    *,
    at: datetime,
) -> AuthenticEvidence:
    # (3) It leads to AMD's root of its product line.
    untrusted = (*certificates, *amd_intermediates(), *trusted.certificates)
    path = amd_path(leaf, untrusted, trusted.certificates, at=at)
    chip = ChipCertificate.parse(leaf)
    root_name = common_name(path.chain[-1])
    if trusted.environment == "hardware" and root_name != f"ARK-{chip.product}":
        raise EvidenceError("product: the root is another product line's (step: authenticate)")
    if report.product is not None and report.product != chip.product:
        raise EvidenceError("product: the report is another product line's (step: authenticate)")
    # (4) Neither AMD's intermediate nor, where AMD lists them, the chip's key is revoked.
    revocation = check_revocation(path.chain[1:], crls, at=at)
    check_revocation(path.chain[:2], crls, at=at)
    # (5) The report is signed by that key.
    report.verify(leaf.public_key())
    # (6) The certificate is for this TCB and this chip.
    layout = LAYOUTS.get(chip.product)
    if layout is None:
        raise EvidenceError("product: of an unknown line (step: parse)", hint="upgrade cloister")
    _require_same_tcb(report.reported_tcb, chip, layout)
    _require_same_chip(report, chip)
    claims = dict(report.claims) | {
        name: {part: tcb[byte] for part, byte in layout.items() if part not in _OPTIONAL_PARTS}
        for name, tcb in report.tcbs.items()
    }
    return AuthenticEvidence(
        format=Format.SEV_SNP,
        environment=trusted.environment,
        claims=claims | {"product": chip.product},
        binding={"report_data": (report.report_data,)},
        debug=bool(report.policy >> _POLICY_BITS["debug"] & 1),
        not_before=path.not_before,
        not_after=path.not_after,
        checks=(
            f"{report.signer} signature over the report",
            f"certificate path to {root_name}",
            "TCB of the certificate equals the reported TCB",
            "chip of the certificate equals the report's" if chip.hardware_id else "VLEK: no chip is named",
        )
        + (("revocation of AMD's intermediate",) if revocation else ()),
        not_checked=() if revocation else ("revocation: no list by the ARK was given",),
    )


def _product(family: int, model: int) -> str:
    """Product line of a CPUID family and model (AMD 56860, ATTESTATION_REPORT, CPUID_FAM_ID)."""
    match family, model >> 4:
        case 0x19, 0x0:
            return "Milan"
        case 0x19, 0x1 | 0xA:
            return "Genoa"
        case 0x1A, 0x0 | 0x1:
            return "Turin"
        case _:
            raise EvidenceError("cpuid: of an unknown product line (step: parse)", hint="upgrade cloister")


def _require_same_tcb(reported: bytes, chip: ChipCertificate, layout: Mapping[str, int]) -> None:
    for part, byte in layout.items():
        certified = chip.tcb.get(part, 0 if part in _OPTIONAL_PARTS else None)
        if certified != reported[byte]:
            raise EvidenceError(
                f"reported_tcb.{part}: the certificate is for another TCB (step: authenticate)",
                hint="fetch the VCEK for the reported TCB; the firmware was probably updated",
            )
    unused = set(range(8)) - set(layout.values())
    if any(reported[byte] for byte in unused):
        raise EvidenceError("reported_tcb: a reserved byte is not zero (step: parse)")


def _require_same_chip(report: Report, chip: ChipCertificate) -> None:
    if report.signer == "SEV-VLEK":
        if chip.hardware_id is not None:
            raise EvidenceError("chip certificate: a VLEK that names a chip (step: authenticate)")
        return
    # Turin identifies a chip with 8 bytes; the report pads them with zeros.
    expected = (chip.hardware_id or b"").ljust(64, b"\0")
    if not any(expected) or not hmac.compare_digest(report.chip_id, expected):
        raise EvidenceError(
            "chip_id: the certificate is another chip's, or the report masks it (step: authenticate)",
            hint="ask the platform to unmask the chip id, or to sign with a VLEK",
        )


def _certificate_table(table: bytes) -> tuple[bytes, ...]:
    reader = Reader(table, "certificate table")
    certificates: list[bytes] = []
    for _ in range(_MAX_TABLE_ENTRIES):
        guid, offset, length = reader.take(16), reader.little(4), reader.little(4)
        if not any(guid) and not offset and not length:
            return tuple(certificates)
        entry = Reader(table, "certificate table")
        entry.take(offset)
        certificates.append(entry.take(length))
    raise EvidenceError("certificate table: too many entries (step: parse)")
