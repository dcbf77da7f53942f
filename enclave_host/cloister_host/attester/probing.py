"""Which attester fits the machine: what is named, or the strongest that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.attester import Attester
from cloister_host.attester.confidential_space import SOCKET, ConfidentialSpaceAttester
from cloister_host.attester.configfs_tsm import ROOT, TsmAttester
from cloister_host.attester.nitro import DEVICE as NSM
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.simulated import SimulatedAttester, image_digest
from cloister_host.attester.tpm2 import tpm_attester
from cloister_host.attester.tpm_client import DEVICE as TPM
from cloister_host.attester.tpm_client import open_tpm

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
    tpm: Path = TPM,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.time,
) -> Attester:
    """The attester named, or the first in order whose device is there and answers.

    Simulated evidence is never a fallback: it must be named.

    Args:
        named: `nitro`, `gcp-confidential-space`, `tsm`, `tpm` or `simulated`; empty to probe.
        tpm: The TPM's device, or the UNIX socket of a software TPM.
        root: Where to look for devices.
        clock: Epoch seconds, for simulated evidence.

    Raises:
        ConfigurationError: The name is unknown, or there is no TEE.
        UnavailableError: What was named does not answer.
    """
    make: dict[str, Callable[[], Attester]] = {
        "nitro": NitroAttester,
        "gcp-confidential-space": ConfidentialSpaceAttester,
        "tsm": lambda: TsmAttester(_under(root, ROOT)),
        "tpm": lambda: tpm_attester(lambda: open_tpm(_under(root, tpm))),
        "simulated": lambda: SimulatedAttester(image_digest(), clock=clock),
    }
    if named:
        if named not in make:
            raise ConfigurationError("the attester is unknown", hint=f"use one of {', '.join(make)}")
        return make[named]()
    for name, path in {**_ORDER, "tpm": tpm}.items():
        if _under(root, path).exists():
            try:
                return make[name]()
            except UnavailableError:
                continue
    raise ConfigurationError(
        "this machine has no TEE that can attest",
        hint="run inside one; for development name it: --attester simulated",
    )


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/") if path.is_absolute() else path
