"""How a host proves what it is, as `cloister host` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister_host.attester.tpm_client import DEVICE as TPM

__all__ = ["AttesterSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttesterSettings:
    """Which attester is used, and what endorses its evidence.

    Attributes:
        name: An attester by name; empty to take the strongest that answers. Simulation must be named.
        tpm: The TPM's device, or the UNIX socket of a software TPM.
        trust_anchors: Roots (or a TPM's pinned key) that vouch for this machine instead of the pinned
            ones. The root key is then born in the environment `test`.
        endorsements: Folder of `cloister evidence fetch`, for machines that reach no vendor.
        fetch: Ask the vendor for endorsements and collateral, and keep them fresh.
    """

    name: str = ""
    tpm: Path = TPM
    trust_anchors: tuple[Path, ...] = ()
    endorsements: Path | None = None
    fetch: bool = True

    def anchors(self) -> tuple[bytes, ...] | None:
        """The contents of `trust_anchors`; None means the pinned ones."""
        return tuple(path.read_bytes() for path in self.trust_anchors) or None
