"""The first step: is the evidence genuine?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from types import MappingProxyType
from typing import Final, Protocol, cast

from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.errors import AttestationError, ConfigurationError, EvidenceError

__all__ = ["Support", "authenticate"]

MAX_EVIDENCE_BYTES: Final = 256 * 1024
MAX_ENDORSEMENTS: Final = 32
MAX_COLLATERAL_BYTES: Final = 1024 * 1024

_MODULES: Final = MappingProxyType(
    {
        Format.NITRO: "nitro",
        Format.NITRO_TPM: "nitro_tpm",
        Format.SEV_SNP: "sev_snp",
        Format.TDX: "tdx",
        Format.SGX: "sgx",
        Format.TPM: "tpm",
        Format.AZURE_VTPM: "azure_vtpm",
        Format.AZURE_MAA: "azure_maa",
        Format.GCP_CONFIDENTIAL_SPACE: "gcp_confidential_space",
        Format.SIMULATED: "simulated",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What comes beside the evidence. All of it is untrusted but `trust_anchors` and `jwks`."""

    endorsements: tuple[bytes, ...] = ()
    collateral: bytes | None = None
    trust_anchors: tuple[bytes, ...] | None = None
    jwks: bytes | None = None


class _FormatModule(Protocol):
    def authenticate(self, raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence: ...


def authenticate(
    evidence: bytes,
    *,
    format: Format,  # noqa: A002 (RATS word)
    at: datetime,
    endorsements: Sequence[bytes] = (),
    collateral: bytes | None = None,
    trust_anchors: Sequence[bytes] | None = None,
    jwks: bytes | None = None,
) -> AuthenticEvidence:
    """Show that evidence is genuine: parsed strictly, signed, and vouched for by a trust anchor.

    Args:
        evidence: The document, as it came.
        format: What it is meant to be; never guessed from the bytes.
        at: The time for which to decide, with a time zone.
        endorsements: Certificates (DER or PEM, any order) and CRLs that lead to the anchor.
        collateral: Intel PCS collateral as JSON (TDX and SGX).
        trust_anchors: Roots to use instead of the pinned ones; the result is then `test`.
        jwks: Keys of the token issuer (Azure MAA and Confidential Space OIDC), as JSON.

    Raises:
        EvidenceError: It is not genuine, not valid at that time, or malformed.
        ConfigurationError: `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ConfigurationError("the time of attestation has no time zone", hint="pass an aware datetime")
    if not 0 < len(evidence) <= MAX_EVIDENCE_BYTES:
        raise EvidenceError(f"the evidence is empty or larger than {MAX_EVIDENCE_BYTES} bytes")
    if len(endorsements) > MAX_ENDORSEMENTS or sum(map(len, endorsements)) > MAX_COLLATERAL_BYTES:
        raise EvidenceError("there are too many endorsements")
    if collateral is not None and len(collateral) > MAX_COLLATERAL_BYTES:
        raise EvidenceError(f"the collateral is larger than {MAX_COLLATERAL_BYTES} bytes")
    support = Support(
        endorsements=tuple(endorsements),
        collateral=collateral,
        trust_anchors=None if trust_anchors is None else tuple(trust_anchors),
        jwks=jwks,
    )
    module = cast("_FormatModule", import_module(f"cloister.attestation.formats.{_MODULES[format]}"))
    try:
        authentic = module.authenticate(evidence, support, at=at)
    except AttestationError as refusal:
        # Parsers chain the library's exception, which may quote claim values.
        raise refusal from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, OSError, RecursionError):
        # Fail closed on what a parser did not foresee.
        raise EvidenceError("evidence: malformed (step: parse)") from None
    if not authentic.not_before <= at <= authentic.not_after:
        raise EvidenceError(
            "validity: the evidence is expired or not yet valid at this time (step: authenticate)",
            hint="ask for fresh evidence, and check both clocks",
        )
    return authentic
