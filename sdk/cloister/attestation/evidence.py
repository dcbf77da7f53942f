"""What authentication hands to appraisal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from cloister.errors import EvidenceError

__all__ = ["AuthenticEvidence", "Environment", "Format", "format_named"]

Environment = Literal["hardware", "simulated", "test"]


class Format(StrEnum):
    """The kinds of evidence that can be authenticated."""

    NITRO = "nitro"
    NITRO_TPM = "nitro-tpm"
    SEV_SNP = "sev-snp"
    TDX = "tdx"
    SGX = "sgx"
    TPM = "tpm"
    AZURE_VTPM = "azure-vtpm"
    AZURE_MAA = "azure-maa"
    GCP_CONFIDENTIAL_SPACE = "gcp-confidential-space"
    SIMULATED = "simulated"


def format_named(name: str) -> Format:
    """The format with this name.

    Raises:
        EvidenceError: There is none.
    """
    try:
        return Format(name)
    except ValueError:
        raise EvidenceError(
            "the evidence is of an unknown format",
            hint=f"this client knows {', '.join(Format)}; upgrade it if the host is newer",
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticEvidence:
    """Evidence whose signatures reach a trust anchor. Nothing is said yet about whether to accept it.

    Attributes:
        format: What kind of document it was.
        environment: `hardware` or `simulated` if a pinned anchor vouches for it, `test` if the anchor
            came from the caller.
        claims: What the evidence says, by the names that appraisal policies use.
        binding: What it carries of the attester's statement and the verifier's nonce, by field.
        debug: Whether its memory can be read or its software replaced from outside.
        issued_at: When it was made, if the format says so.
        not_before: Start of the time in which every certificate or token behind it is valid.
        not_after: End of that time.
        checks: What was verified, in order.
        not_checked: What a reader might expect and was not verified.
    """

    format: Format
    environment: Environment
    claims: Mapping[str, Any]
    binding: Mapping[str, tuple[bytes, ...]]
    debug: bool
    not_before: datetime
    not_after: datetime
    checks: tuple[str, ...]
    issued_at: datetime | None = None
    not_checked: tuple[str, ...] = ()
