"""Azure's HCL report: how an SEV-SNP or TDX machine vouches for the attestation key of its vTPM.

Source: Microsoft, "vTPM on confidential VMs: attestation report structure". The hardware report's first
32 bytes of report data are the SHA-256 of a JSON text that names the key. For SEV-SNP the report is
inside; on TDX it is a local report only, so a quote over the same report data comes beside it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from cloister.attestation.certificates import refusing
from cloister.attestation.reader import Reader
from cloister.errors import EvidenceError
from cloister.jose import b64url_decode, strict_json

__all__ = ["MAGIC", "SEV_SNP", "TDX", "HclReport"]

MAGIC: Final = b"HCLA"
SEV_SNP: Final = 2
TDX: Final = 4
_HEADER_BYTES: Final = 32
_HARDWARE_REPORT_BYTES: Final = 1184
_RUNTIME_HEADER_BYTES: Final = 20
_SHA256: Final = 1
_REQUEST_TYPE: Final = 2
_VERSIONS: Final = {1, 2}
_MAX_RUNTIME_BYTES: Final = 16 * 1024
_ATTESTATION_KEY: Final = "HCLAkPub"


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """A parsed report; nothing is vouched for until `report_data` was found in hardware evidence."""

    kind: int
    hardware_report: bytes
    report_data: bytes
    attestation_key: rsa.RSAPublicKey
    vm_configuration: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes) -> HclReport:
        """Read exactly one report; zeros may fill up the TPM index it was read from.

        Raises:
            EvidenceError: It is malformed.
        """
        reader = Reader(raw, "HCL report")
        magic, version, size = reader.take(4), reader.little(4), reader.little(4)
        request_type, status, reserved = reader.little(4), reader.little(4), reader.take(12)
        if magic != MAGIC or version not in _VERSIONS or request_type != _REQUEST_TYPE:
            raise EvidenceError("HCL report: of an unknown kind (step: parse)")
        hardware_report = reader.take(_HARDWARE_REPORT_BYTES)
        runtime_bytes, runtime_version, kind = reader.little(4), reader.little(4), reader.little(4)
        hash_type = reader.little(4)
        runtime = reader.sized(4, limit=_MAX_RUNTIME_BYTES, order="little")
        if (
            status
            or any(reserved)
            or any(reader.rest())
            or size != _HEADER_BYTES + _HARDWARE_REPORT_BYTES + runtime_bytes
            or runtime_bytes != _RUNTIME_HEADER_BYTES + len(runtime)
            or runtime_version != 1
            or hash_type != _SHA256
            or kind not in {SEV_SNP, TDX}
        ):
            raise EvidenceError("HCL report: malformed (step: parse)")
        with refusing("HCL report"):
            members = strict_json.load_object(runtime)
            keys = [key for key in members["keys"] if key["kid"] == _ATTESTATION_KEY]
            if len(keys) != 1 or keys[0]["kty"] != "RSA" or "sign" not in keys[0]["key_ops"]:
                raise ValueError
            modulus, exponent = (int.from_bytes(b64url_decode(keys[0][name]), "big") for name in ("n", "e"))
            attestation_key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
            configuration = members.get("vm-configuration", {})
            if not isinstance(configuration, Mapping):
                raise TypeError
        return cls(
            kind=kind,
            hardware_report=hardware_report,
            report_data=hashlib.sha256(runtime).digest().ljust(64, b"\0"),
            attestation_key=attestation_key,
            vm_configuration=configuration,
        )

    def require_vouched_for(self, report_data: bytes) -> None:
        """Show that hardware evidence with this report data speaks of this report.

        Raises:
            EvidenceError: It speaks of another.
        """
        if not hmac.compare_digest(report_data, self.report_data):
            raise EvidenceError("HCL report: the hardware evidence speaks of another (step: authenticate)")
