"""Settings of the unseal providers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.secret import Secret

__all__ = ["DEFAULT_FOLDER", "DEFAULT_KEY", "Pkcs11Settings", "ShamirSettings"]

DEFAULT_KEY: Final = "cloister-root"
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
class ShamirSettings:
    """How the key of the root key is split, and which shares were brought.

    Attributes:
        shares: How many shares are made, one for each operator.
        threshold: How many of them start a host.
        folder: Empty or new folder that they are written into.
        files: The shares that were brought to this start.
    """

    shares: int = 5
    threshold: int = 3
    folder: Path = DEFAULT_FOLDER
    files: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the shares are written."""
        return tuple(self.folder / f"share-{number}.txt" for number in range(1, self.shares + 1))
