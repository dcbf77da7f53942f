"""Options that say who seals the root key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cloister.secret import Secret
from cloister_host.unseal.settings import DEFAULT_FOLDER, DEFAULT_KEY, Pkcs11Settings

__all__ = [
    "HSM_KEY",
    "SHARES_FOLDER",
    "HsmKey",
    "HsmModule",
    "HsmPinFile",
    "HsmToken",
    "Provider",
    "ShareFiles",
    "Shares",
    "SharesFolder",
    "Threshold",
    "hsm_settings",
]

PIN_VARIABLE = "CLOISTER_HSM_PIN"
HSM_KEY = DEFAULT_KEY
SHARES_FOLDER = DEFAULT_FOLDER

Provider = Annotated[
    str, typer.Option("--unseal", help="What seals the root key: file (development), pkcs11 or shamir.")
]
HsmModule = Annotated[Path | None, typer.Option(help="PKCS #11 library of the HSM's vendor.")]
HsmToken = Annotated[str, typer.Option(help="Label of the HSM's token.")]
HsmKey = Annotated[str, typer.Option(help="Label of the wrapping key in the token.")]
HsmPinFile = Annotated[
    Path | None,
    typer.Option(help=f"File with the user PIN, mode 600; without it {PIN_VARIABLE} is read."),
]

ShareFiles = Annotated[
    list[Path] | None, typer.Option("--share", help="File with an operator's share; repeatable.")
]
Shares = Annotated[int, typer.Option(help="How many shares are made, for shamir.")]
Threshold = Annotated[int, typer.Option(help="How many shares start a host, for shamir.")]
SharesFolder = Annotated[Path, typer.Option(help="Empty or new folder for the shares, for shamir.")]


def hsm_settings(module: Path | None, token: str, key: str, pin_file: Path | None) -> Pkcs11Settings:
    """Where the wrapping key is.

    A PIN in the environment is taken out of it, so that no process that is started later inherits it.
    """
    pin = os.environ.pop(PIN_VARIABLE, "")
    return Pkcs11Settings(
        module=module,
        token=token,
        key=key,
        pin_file=pin_file,
        pin=Secret(pin.encode(errors="surrogateescape")) if pin else None,
    )
