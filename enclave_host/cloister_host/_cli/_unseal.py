"""Options that say who seals the root key.

What a provider needs beside a name is given as `--unseal-option NAME=VALUE`, so that a command does not grow
with each provider.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister.errors import ConfigurationError
from cloister.secret import Secret
from cloister_host.settings import HostSettings
from cloister_host.unseal.settings import (
    DEFAULT_FOLDER,
    DEFAULT_KEY,
    DEFAULT_PCRS,
    KmsSettings,
    Pkcs11Settings,
    ShamirSettings,
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
    "kms_settings",
    "shamir_settings",
    "tpm2_settings",
    "with_provider",
]

PIN_VARIABLE = "CLOISTER_HSM_PIN"
HSM_KEY = DEFAULT_KEY
SHARES_FOLDER = DEFAULT_FOLDER

Provider = Annotated[
    str,
    typer.Option(
        "--unseal",
        help="What seals the root key: file (development), pkcs11, shamir, tpm2, "
        "aws-kms, gcp-kms or azure-keyvault.",
    ),
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
        help="shamir: collect-shares=ADDRESS:PORT; tpm2: tpm-pcrs=4,7,11 and tpm-accept=FILE; "
        "the services of clouds: kms-key=NAME and kms-endpoint=URL. Repeatable.",
    ),
]

_ONCE: Final = frozenset(
    {
        "tpm-pcrs",
        "kms-key",
        "kms-endpoint",
        "hsm-module",
        "hsm-token",
        "hsm-key",
        "hsm-pin-file",
        "shares",
        "threshold",
        "shares-folder",
        "collect-shares",
    }
)
_OFTEN: Final = frozenset({"tpm-accept", "share"})


def with_provider(
    settings: HostSettings, provider: str, options: Sequence[str] | None, *, tpm: Path
) -> HostSettings:
    """The same settings with another unseal provider, whose options are all given as NAME=VALUE.

    Raises:
        ConfigurationError: There is no such option, it was given twice, or its value makes no sense.
    """
    found = _Options(options)
    module, pin = found.once("hsm-module"), found.once("hsm-pin-file")
    return replace(
        settings,
        unseal=provider,
        pkcs11=hsm_settings(
            Path(module) if module else None,
            found.once("hsm-token"),
            found.once("hsm-key", HSM_KEY),
            Path(pin) if pin else None,
        ),
        shamir=ShamirSettings(
            shares=found.number("shares", 5),
            threshold=found.number("threshold", 3),
            folder=Path(found.once("shares-folder", str(SHARES_FOLDER))),
            files=found.paths("share"),
            collect=found.once("collect-shares"),
        ),
        tpm2=tpm2_settings(options, tpm=tpm),
        kms=kms_settings(options),
    )


def tpm2_settings(options: Sequence[str] | None, *, tpm: Path) -> Tpm2Settings:
    """What `--unseal-option` says of the provider `tpm2`; raises as `with_provider`."""
    found = _Options(options)
    pcrs = found.once("tpm-pcrs", ",".join(map(str, DEFAULT_PCRS))).split(",")
    if not all(index.isdecimal() for index in pcrs):
        raise ConfigurationError("the PCRs to seal to make no sense", hint="--unseal-option tpm-pcrs=4,7,11")
    return Tpm2Settings(device=tpm, pcrs=tuple(map(int, pcrs)), accept=found.paths("tpm-accept"))


def shamir_settings(files: Sequence[Path] | None, options: Sequence[str] | None) -> ShamirSettings:
    """The shares that are brought as files, or where they are waited for; raises as `with_provider`."""
    return ShamirSettings(files=tuple(files or ()), collect=_Options(options).once("collect-shares"))


def kms_settings(options: Sequence[str] | None) -> KmsSettings:
    """What `--unseal-option` says of the key management services; raises as `with_provider`."""
    found = _Options(options)
    return KmsSettings(key=found.once("kms-key"), endpoint=found.once("kms-endpoint"))


class _Options:
    """Options given as NAME=VALUE."""

    def __init__(self, options: Sequence[str] | None) -> None:
        self._found: dict[str, list[str]] = {}
        for option in options or ():
            name, equals, value = option.partition("=")
            if not equals or name not in _ONCE | _OFTEN or (name in _ONCE and name in self._found):
                raise ConfigurationError(
                    f"the option {name} is unknown, without a value or given twice",
                    hint=f"NAME=VALUE, where NAME is one of {', '.join(sorted(_ONCE | _OFTEN))}",
                )
            self._found.setdefault(name, []).append(value)

    def once(self, name: str, default: str = "") -> str:
        return self._found.get(name, [default])[0]

    def number(self, name: str, default: int) -> int:
        value = self.once(name, str(default))
        if not value.isdecimal():
            raise ConfigurationError(f"the option {name} is no number")
        return int(value)

    def paths(self, name: str) -> tuple[Path, ...]:
        return tuple(map(Path, self._found.get(name, ())))


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
