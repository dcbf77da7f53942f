"""Settings of the unseal providers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.secret import Secret
from cloister_host.attester.tpm_client import DEVICE as TPM

__all__ = [
    "DEFAULT_FOLDER",
    "DEFAULT_KEY",
    "DEFAULT_PCRS",
    "KmsSettings",
    "Pkcs11Settings",
    "ShamirSettings",
    "Tpm2Settings",
]

DEFAULT_KEY: Final = "cloister-root"
# Boot loader, Secure Boot's keys, and what the boot loader measured: what identifies an image.
DEFAULT_PCRS: Final = (4, 7, 8, 9, 11)
DEFAULT_FOLDER: Final = Path("shares")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Settings:
    """Which key of which token wraps the root key.

    Attributes:
        module: The vendor's PKCS #11 library.
        token: Label of the token.
        key: Label of the AES key in it; a deployment has one of its own.
        pin_file: File with the user PIN, readable by its owner alone.
        pin: The user PIN itself, instead of a file.
    """

    module: Path | None = None
    token: str = ""
    key: str = DEFAULT_KEY
    pin_file: Path | None = None
    pin: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm2Settings:
    """Which TPM keeps the key of the root key, and for which boot states.

    Attributes:
        device: The TPM's device, or the UNIX socket of a software TPM.
        pcrs: The PCRs that have to be as they are now, or as in one of the files.
        accept: Evidence of machines of other images that may start the host too.
    """

    device: Path = TPM
    pcrs: tuple[int, ...] = DEFAULT_PCRS
    accept: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsSettings:
    """Which key of which service wraps data keys.

    Attributes:
        key: Its full name: an ARN, a resource name, or a key identifier with its version.
        endpoint: Where the service is, if not where it says itself.
        timeout_seconds: How long one connection, and one answer, may take.
        attempts: How often a call is made in all, if the service is busy.
    """

    key: str = ""
    endpoint: str = ""
    timeout_seconds: float = 5.0
    attempts: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShamirSettings:
    """How the key of the root key is split, and which shares were brought.

    Attributes:
        shares: How many shares are made, one for each operator.
        threshold: How many of them start a host.
        folder: Empty or new folder that they are written into.
        files: The shares that were brought to this start.
        collect: Address and port at which operators' shares are waited for instead, sealed to this enclave.
    """

    shares: int = 5
    threshold: int = 3
    folder: Path = DEFAULT_FOLDER
    files: tuple[Path, ...] = ()
    collect: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the shares are written."""
        return tuple(self.folder / f"share-{number}.txt" for number in range(1, self.shares + 1))
