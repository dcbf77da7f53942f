"""AWS NitroTPM attestation documents: measured boot of an EC2 instance, not of an enclave."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cloister.attestation.authenticate import Support
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.nitro import authenticate_document

__all__ = ["authenticate"]


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a NitroTPM document.

    Raises:
        EvidenceError: It is not genuine, or not a NitroTPM document.
    """
    evidence = authenticate_document(
        raw, support, at=at, format=Format.NITRO_TPM, pcrs_member="nitrotpm_pcrs"
    )
    return replace(
        evidence,
        not_checked=(*evidence.not_checked, "isolation: an instance is attested, not an enclave"),
    )
