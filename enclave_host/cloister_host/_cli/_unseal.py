"""Options that say who seals the root key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister.secret import Secret
from cloister_host.unseal.settings import DEFAULT_KEY, Pkcs11Settings

__all__ = ["HSM_KEY", "HsmKey", "HsmModule", "HsmPinFile", "HsmToken", "Provider", "unseal_settings"]

PIN_VARIABLE = "CLOISTER_HSM_PIN"
HSM_KEY = DEFAULT_KEY

Provider = Annotated[
    str, typer.Option("--unseal", help="What seals the root key: file (development) or pkcs11.")
]
HsmModule = Annotated[Path | None, typer.Option(help="PKCS #11 library of the HSM's vendor.")]
HsmToken = Annotated[str, typer.Option(help="Label of the HSM's token.")]
HsmKey = Annotated[str, typer.Option(help="Label of the wrapping key in the token.")]
HsmPinFile = Annotated[
    Path | None,
    typer.Option(help=f"File with the user PIN, mode 600; without it {PIN_VARIABLE} is read."),
]


def unseal_settings(
    provider: str, module: Path | None, token: str, key: str, pin_file: Path | None
) -> dict[str, Any]:
    """The part of `HostSettings` that says who seals the root key.

    A PIN in the environment is taken out of it, so that no process that is started later inherits it.
    """
    pin = os.environ.pop(PIN_VARIABLE, "")
    return {
        "unseal": provider,
        "pkcs11": Pkcs11Settings(
            module=module,
            token=token,
            key=key,
            pin_file=pin_file,
            pin=Secret(pin.encode()) if pin else None,
        ),
    }
