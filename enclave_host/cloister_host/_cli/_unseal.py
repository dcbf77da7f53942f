"""Options that say who seals the root key.

What a provider needs beside a name is given as `--unseal-option NAME=VALUE`, so that a command does not grow
with each provider.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister.errors import ConfigurationError
from cloister.secret import Secret
from cloister_host.unseal.settings import (
    DEFAULT_FOLDER,
    DEFAULT_KEY,
    DEFAULT_PCRS,
    Pkcs11Settings,
    Tpm2Settings,
)

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
    "UnsealOptions",
    "hsm_settings",
    "more_settings",
]

PIN_VARIABLE = "CLOISTER_HSM_PIN"
HSM_KEY = DEFAULT_KEY
SHARES_FOLDER = DEFAULT_FOLDER

Provider = Annotated[
    str,
    typer.Option("--unseal", help="What seals the root key: file (development), pkcs11, shamir or tpm2."),
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

UnsealOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--unseal-option",
        metavar="NAME=VALUE",
        help="For tpm2: tpm-pcrs=4,7,11 and tpm-accept=FILE. Repeatable.",
    ),
]

_ONCE: Final = frozenset({"tpm-pcrs"})
_OFTEN: Final = frozenset({"tpm-accept"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreSettings:
    """What `--unseal-option` gave."""

    tpm2: Tpm2Settings


def more_settings(options: Sequence[str] | None, *, tpm: Path) -> MoreSettings:
    """Read `--unseal-option`.

    Args:
        options: As they were given.
        tpm: The TPM of this machine.

    Raises:
        ConfigurationError: There is no such option, it was given twice, or its value makes no sense.
    """
    found: dict[str, list[str]] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not equals or name not in _ONCE | _OFTEN or (name in _ONCE and name in found):
            raise ConfigurationError(
                f"--unseal-option {name} is unknown, without a value or given twice",
                hint=f"NAME=VALUE, where NAME is one of {', '.join(sorted(_ONCE | _OFTEN))}",
            )
        found.setdefault(name, []).append(value)

    def once(name: str, default: str = "") -> str:
        return found.get(name, [default])[0]

    pcrs = once("tpm-pcrs", ",".join(map(str, DEFAULT_PCRS))).split(",")
    if not all(index.isdecimal() for index in pcrs):
        raise ConfigurationError("the PCRs to seal to make no sense", hint="--unseal-option tpm-pcrs=4,7,11")
    return MoreSettings(
        tpm2=Tpm2Settings(
            device=tpm, pcrs=tuple(map(int, pcrs)), accept=tuple(map(Path, found.get("tpm-accept", ())))
        )
    )


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
