"""Who the caller is, as the host is told inside the sealed request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cloister.errors import ConfigurationError
from cloister.secret import Secret

if TYPE_CHECKING:
    from cloister.protocol import RequestBinding

__all__ = ["ApiKey", "Identity", "audience"]

MAX_KEY_BYTES = 512


class Identity(Protocol):
    """Port: proof of who the caller is, made for one deployment and one request.

    It is asked for anew for every request that is sealed, from any thread; whatever can be used more than
    once (a token until it nears its end) it keeps itself.
    """

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:
        """The credential's members, `type` among them.

        Args:
            deployment: Name of the appraised deployment. A token's audience is `audience(deployment)`.
            request: The one request it is for, for credentials that are signed over it.

        Raises:
            IdentityError: The credential cannot be had.
            UnavailableError: Whoever issues it does not answer now.
        """
        ...


def audience(deployment: str) -> str:
    """The audience of tokens for a deployment, and for no other (PROTOCOL 4)."""
    return f"cloister:{deployment}"


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

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (an API key is for any)
        """The credential's members."""
        return {"type": "api-key", "value": self._key.reveal().decode()}

    def __repr__(self) -> str:
        return "ApiKey(<hidden>)"
