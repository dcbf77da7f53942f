"""What this machine is, read out of its own evidence the way a client reads it.

The host never says by itself what environment it is in or what was measured: it makes evidence,
authenticates it against the same trust anchors as everybody else, and takes what that says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloister.attestation import AuthenticEvidence, Environment, Format
from cloister.attestation.policy import lookup

__all__ = ["Machine"]

_TPM_IMAGE: Final = ("pcr4", "pcr7", "pcr8", "pcr9", "pcr11")
_IMAGE: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.NITRO: ("pcr0", "pcr1", "pcr2", "pcr8"),
    Format.NITRO_TPM: ("pcr4", "pcr7", "pcr11"),
    Format.SEV_SNP: ("measurement",),
    Format.TDX: ("mr_td", "rtmr0", "rtmr1", "rtmr2"),
    Format.SGX: ("mr_enclave",),
    Format.TPM: _TPM_IMAGE,
    Format.AZURE_VTPM: (*_TPM_IMAGE, "hardware.measurement", "hardware.mr_td"),
    Format.GCP_CONFIDENTIAL_SPACE: ("submods.container.image_digest", "hwmodel"),
    Format.SIMULATED: ("measurement",),
}
"""The claims that say which image runs; those of the instance (Nitro's PCR 3 and 4) are left out."""

_VERSIONS: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.SEV_SNP: tuple(
        f"reported_tcb.{part}" for part in ("fmc", "bootloader", "tee", "snp", "microcode")
    ),
    Format.TDX: ("tdx_module_svn",),
    Format.SGX: ("isv_svn",),
}
"""The claims that only ever rise, so that a policy names their minimum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A kind of machine, as reference values describe it.

    Attributes:
        format: The kind of evidence it produces.
        environment: What its trust anchor makes of it.
        measurements: What identifies its image, by dotted claim name.
        minimum: Its security versions, by dotted claim name.
    """

    format: Format
    environment: Environment
    measurements: Mapping[str, Any]
    minimum: Mapping[str, int]

    @classmethod
    def of(cls, evidence: AuthenticEvidence) -> Machine:
        """The machine that authentic evidence speaks of."""
        kind = evidence.format
        return cls(
            format=kind,
            environment=evidence.environment,
            measurements=_named(evidence.claims, _IMAGE.get(kind, ())),
            minimum=_named(evidence.claims, _VERSIONS.get(kind, ())),
        )

    def holder(self) -> Mapping[str, Any]:
        """This machine as an entry of a keyset's `holders` (SPEC.md 7)."""
        return {
            "format": str(self.format),
            "measurements": dict(self.measurements),
            "minimum": dict(self.minimum),
        }


def _named(claims: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := lookup(claims, name)) is not None}
