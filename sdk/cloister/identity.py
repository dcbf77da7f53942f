"""Who the caller is, as the host is told inside the sealed request."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cloister.errors import ConfigurationError
from cloister.secret import Secret

__all__ = ["ApiKey", "Identity"]

MAX_KEY_BYTES = 512


class Identity(Protocol):
    """Port: the credential for one request, as JSON members.

    Raises:
        IdentityError: The credential cannot be had now.
    """

    def credential(self) -> dict[str, str]:
        """The credential's members, `type` among them."""
        ...


class ApiKey:
    """An API key, for development and for callers outside the clouds."""

    def __init__(self, key: str) -> None:
        self._key = Secret(key.encode())

    @classmethod
    def from_file(cls, path: Path) -> ApiKey:
        """Read the key from a file.

        Raises:
            ConfigurationError: The file cannot be read or does not look like an API key.
        """
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(
                f"the API key file {path} cannot be read", hint="set CLOISTER_API_KEY_FILE"
            ) from None
        if not text.startswith("clk_") or len(text) > MAX_KEY_BYTES:
            raise ConfigurationError(f"the file {path} does not hold an API key")
        return cls(text)

    def credential(self) -> dict[str, str]:
        """The credential's members."""
        return {"type": "api-key", "value": self._key.reveal().decode()}

    def __repr__(self) -> str:
        return "ApiKey(<hidden>)"
