"""Which attester fits the machine: what is named, or the strongest that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.attester import Attester
from cloister_host.attester.confidential_space import SOCKET, ConfidentialSpaceAttester
from cloister_host.attester.configfs_tsm import ROOT, TsmAttester
from cloister_host.attester.nitro import DEVICE as NSM
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.attester.tpm2 import DEVICE as TPM
from cloister_host.attester.tpm2 import Tpm2Attester

__all__ = ["choose_attester"]

_ORDER: Final[Mapping[str, Path]] = {
    "nitro": NSM,
    "gcp-confidential-space": SOCKET,
    "tsm": ROOT,
    "tpm": TPM,
}
"""Strongest first: an enclave, a container Google measured, a confidential VM, a measured boot."""


def choose_attester(
    named: str = "",
    *,
    audience: str = "cloister",
    simulated_measurement: str = "",
    root: Path = Path("/"),
) -> Attester:
    """The attester named, or the first in order whose device is there and answers.

    Simulated evidence is never a fallback: it must be named.

    Args:
        named: `nitro`, `gcp-confidential-space`, `tsm`, `tpm` or `simulated`; empty to probe.
        audience: Audience of Confidential Space tokens.
        simulated_measurement: What simulated evidence says is running.
        root: Where to look for devices.

    Raises:
        ConfigurationError: The name is unknown, or there is no TEE.
    """
    make: dict[str, Callable[[], Attester]] = {
        "nitro": NitroAttester,
        "gcp-confidential-space": lambda: ConfidentialSpaceAttester(audience=audience),
        "tsm": lambda: TsmAttester(root / ROOT.relative_to("/")),
        "tpm": Tpm2Attester,
        "simulated": lambda: SimulatedAttester(simulated_measurement or "unmeasured"),
    }
    if named:
        if named not in make:
            raise ConfigurationError("the attester is unknown", hint=f"use one of {', '.join(make)}")
        return make[named]()
    for name, path in _ORDER.items():
        if (root / path.relative_to("/")).exists():
            try:
                return make[name]()
            except UnavailableError:
                continue
    raise ConfigurationError(
        "this machine has no TEE that can attest",
        hint="run inside one, or name the simulated attester for development",
    )
