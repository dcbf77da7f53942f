"""Where each kind of evidence carries the statement and the nonce (PROTOCOL 5, SPEC.md 2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.errors import EvidenceError

__all__ = ["NONCE_FIELDS", "report_data", "require_binding", "require_nonce"]

REPORT_DATA_BYTES: Final = 64
MAX_NONCE_BYTES: Final = 1024

NONCE_FIELDS: Final[Mapping[Format, str]] = {
    Format.NITRO: "nonce",
    Format.NITRO_TPM: "nonce",
    Format.SEV_SNP: "report_data",
    Format.TDX: "report_data",
    Format.SGX: "report_data",
    Format.TPM: "extra_data",
    Format.AZURE_VTPM: "extra_data",
    Format.AZURE_MAA: "nonce",
    Format.GCP_CONFIDENTIAL_SPACE: "nonce",
    Format.SIMULATED: "nonce",
}
"""The field in which a bare challenge travels, without a statement of ours."""


def report_data(format: Format, statement: bytes, nonce: bytes) -> Mapping[str, bytes]:  # noqa: A002 (RATS word)
    """What an attester must put into which field, and a verifier must find there.

    Args:
        format: The kind of evidence.
        statement: Canonical JSON of what is attested; it contains the nonce.
        nonce: The verifier's challenge.
    """
    match format:
        case Format.NITRO | Format.NITRO_TPM:
            return {"user_data": statement, "nonce": nonce}
        case Format.SIMULATED:
            return {"statement": statement, "nonce": nonce}
        case Format.SEV_SNP | Format.TDX | Format.SGX:
            return {"report_data": hashlib.sha512(statement).digest()}
        case Format.TPM | Format.AZURE_VTPM:
            return {"extra_data": hashlib.sha256(statement).digest()}
        case Format.AZURE_MAA | Format.GCP_CONFIDENTIAL_SPACE:
            digest = base64.urlsafe_b64encode(hashlib.sha256(statement).digest())
            return {"nonce": digest.rstrip(b"=")}


def require_binding(evidence: AuthenticEvidence, *, statement: bytes, nonce: bytes) -> None:
    """Show that the evidence speaks of this statement and answers this nonce.

    Raises:
        EvidenceError: A field is absent or holds something else.
    """
    for field, expected in report_data(evidence.format, statement, nonce).items():
        _require_field(evidence, field, expected)


def require_nonce(evidence: AuthenticEvidence, nonce: bytes) -> None:
    """Show that the evidence carries a bare nonce, zero-padded where the field has a fixed width.

    Raises:
        EvidenceError: The nonce is empty or too long, absent from the evidence, or another.
    """
    field = NONCE_FIELDS[evidence.format]
    limit = REPORT_DATA_BYTES if field == "report_data" else MAX_NONCE_BYTES
    if not 0 < len(nonce) <= limit:
        raise EvidenceError("nonce: it cannot be carried by this format", hint=f"use 1 to {limit} bytes")
    expected = nonce.ljust(REPORT_DATA_BYTES, b"\0") if field == "report_data" else nonce
    _require_field(evidence, field, expected)


def _require_field(evidence: AuthenticEvidence, field: str, expected: bytes) -> None:
    carried = evidence.binding.get(field, ())
    if not carried:
        raise EvidenceError(
            f"{field}: the evidence carries none (step: binding)",
            hint="it was not made for this request; ask the host for fresh evidence",
        )
    if not any(hmac.compare_digest(value, expected) for value in carried):
        raise EvidenceError(
            f"{field}: it answers another challenge or speaks of other keys (step: binding)",
            hint="ask the host for fresh evidence; if it persists, someone replays an old document",
        )
