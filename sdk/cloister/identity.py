"""Who the caller is, as the host is told inside the sealed request."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from cloister.errors import ConfigurationError
from cloister.protocol.deployment import audience
from cloister.secret import Secret

if TYPE_CHECKING:
    from cloister.config import Settings
    from cloister.protocol import RequestBinding

__all__ = ["CLOUDS", "ApiKey", "Identity", "audience", "identity_from"]

MAX_KEY_BYTES = 512
CLOUDS: Final = {
    "aws": "cloister_aws.identity",
    "gcp": "cloister_gcp.identity",
    "azure": "cloister_azure.identity",
}
"""Modules that give `workload(settings)` and `stored_key(name)`, both an `Identity`, by its name."""
_FILES: Final = ("token", "mtls")
_STORES: Final = {"arn:": "aws", "projects/": "gcp", "https://": "azure"}
"""Which cloud keeps a secret of this name."""


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
        return cls.parse(text, where=f"the file {path}")

    @classmethod
    def parse(cls, text: str, *, where: str) -> ApiKey:
        """Take text for a key if it looks like one.

        Raises:
            ConfigurationError: It does not; `where` says whose text it is.
        """
        key = text.strip()
        if not key.startswith("clk_") or not key.isascii() or len(key) > MAX_KEY_BYTES:
            raise ConfigurationError(f"{where} does not hold an API key")
        return cls(key)

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (an API key is for any)
        """The credential's members."""
        return {"type": "api-key", "value": self._key.reveal().decode()}

    def __repr__(self) -> str:
        return "ApiKey(<hidden>)"


def identity_from(settings: Settings) -> Identity:
    """Make the identity that the settings name.

    Those of the clouds come from their adapters, imported when they are named and at no other time.

    Raises:
        ConfigurationError: The identity is unknown or incomplete, or its adapter is not installed.
    """
    if settings.identity in CLOUDS:
        return cast("Identity", _adapter(settings.identity).workload(settings))
    if settings.identity in _FILES:
        return _from_files(settings)
    if settings.identity != "key":
        known = ", ".join(["key", *_FILES, *CLOUDS])
        raise ConfigurationError("CLOISTER_IDENTITY is not a known identity", hint=f"one of {known}")
    if settings.api_key_file is not None:
        return ApiKey.from_file(settings.api_key_file)
    name = settings.api_key_secret
    if name is None:
        raise ConfigurationError("identity `key` needs CLOISTER_API_KEY_FILE or CLOISTER_API_KEY_SECRET")
    cloud = next((cloud for prefix, cloud in _STORES.items() if name.startswith(prefix)), None)
    if cloud is None:
        raise ConfigurationError(
            "CLOISTER_API_KEY_SECRET names no secret of a known cloud",
            hint="an ARN of AWS, Google's projects/PROJECT/secrets/NAME, or a URL of Azure's Key Vault",
        )
    return cast("Identity", _adapter(cloud).stored_key(name))


def _from_files(settings: Settings) -> Identity:
    from cloister.identity_files import Certificate, TokenFile  # noqa: PLC0415 (what few need loads nothing for the rest)

    if settings.identity == "token":
        if settings.token_file is None:
            raise ConfigurationError("identity `token` needs CLOISTER_TOKEN_FILE")
        return TokenFile(settings.token_file)
    if settings.certificate_file is None or settings.certificate_key_file is None:
        raise ConfigurationError(
            "identity `mtls` needs CLOISTER_CERTIFICATE_FILE and CLOISTER_CERTIFICATE_KEY_FILE"
        )
    return Certificate.from_files(settings.certificate_file, settings.certificate_key_file)


def _adapter(cloud: str) -> Any:
    try:
        return importlib.import_module(CLOUDS[cloud])
    except ImportError:
        raise ConfigurationError(
            f"the identity of {cloud} is not installed", hint=f"pip install 'cloister[{cloud}]'"
        ) from None
