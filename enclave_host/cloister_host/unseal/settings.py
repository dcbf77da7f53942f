"""Settings of the unseal providers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.secret import Secret

__all__ = ["DEFAULT_KEY", "Pkcs11Settings"]

DEFAULT_KEY: Final = "cloister-root"


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
