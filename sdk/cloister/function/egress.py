"""How a function reaches the outside: declared origins, and deliveries after it has returned.

A function never opens a connection. It receives an `Origin` for each origin it declared; the host makes
the calls, adds the secrets the function may use but never sees, and checks what comes back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from cloister.errors import ConfigurationError, FunctionError
from cloister.function.names import check_header, check_name, check_origin, check_path

__all__ = ["Delivery", "Origin", "OriginRule", "Response", "deliver", "origin", "resolve_settings"]

_SETTING: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]{0,62})\}")
_PIN: Final = re.compile(r"[0-9a-f]{64}")
_MAX_CACHE_SECONDS: Final = 86_400
_MAX_TIMEOUT_SECONDS: Final = 60
_MAX_RESPONSE_BYTES: Final = 16 << 20
_MAX_PINS: Final = 8
_MAX_SECRETS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What an origin answered; a status of 400 and above is an answer too, not an error."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    def json(self) -> Any:
        """Decode the body.

        Raises:
            FunctionError: The body is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise FunctionError("the origin's answer is not JSON", hint="look at status first") from None


class Origin(Protocol):
    """A declared origin, as a function sees it. Header names in answers are lower-case.

    Every call may raise UnavailableError (no answer in time), LimitError (answer too large) or
    ConfigurationError (path or headers that cannot be sent).
    """

    def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Fetch `path`; retried and, where declared, cached by the host."""
        ...

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send `json` or `body` to `path`; never retried."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRule:
    """One declared origin and what may go there."""

    url: str
    secrets: Mapping[str, str] = field(default_factory=dict)
    cache_seconds: int = 0
    spki_sha256: tuple[str, ...] = ()
    timeout_seconds: int = 5
    max_response_bytes: int = 1 << 20
    client_certificate: str | None = None

    def __post_init__(self) -> None:
        if self.client_certificate is not None:
            check_name(self.client_certificate, "secret")
        for header, secret in self.secrets.items():
            check_header(header, "origin()")
            check_name(secret, "secret")
        if (
            len({header.lower() for header in self.secrets}) != len(self.secrets)
            or len(self.secrets) > _MAX_SECRETS
        ):
            raise ConfigurationError("origin() sets a header twice or too many", hint="one secret per header")
        _check_range(self.cache_seconds, 0, _MAX_CACHE_SECONDS, "cache_seconds")
        _check_range(self.timeout_seconds, 1, _MAX_TIMEOUT_SECONDS, "timeout_seconds")
        _check_range(self.max_response_bytes, 1, _MAX_RESPONSE_BYTES, "max_response_bytes")
        if len(self.spki_sha256) > _MAX_PINS or not all(_is_pin(pin) for pin in self.spki_sha256):
            raise ConfigurationError(
                "a pin of origin() cannot be used",
                hint="write the SHA-256 of the SPKI as 64 lower-case hex digits",
            )

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Every stored secret that may be used for this origin."""
        certificate = () if self.client_certificate is None else (self.client_certificate,)
        return (*self.secrets.values(), *certificate)

    def resolved(self, settings: Mapping[str, str], *, used: dict[str, str]) -> OriginRule:
        """Put settings into the URL and return the rule with its origin in normal form."""
        return replace(self, url=check_origin(resolve_settings(self.url, settings, used=used), "origin()"))

    def to_manifest(self) -> dict[str, Any]:
        """Describe this rule in JSON."""
        return {
            "origin": self.url,
            "secrets": dict(self.secrets),
            "cache_seconds": self.cache_seconds,
            "spki_sha256": list(self.spki_sha256),
            "timeout_seconds": self.timeout_seconds,
            "max_response_bytes": self.max_response_bytes,
            "client_certificate": self.client_certificate,
        }

    @classmethod
    def from_manifest(cls, described: Mapping[str, Any]) -> OriginRule:
        """Rebuild a rule from a manifest."""
        arguments = dict(described)
        url = check_origin(arguments.pop("origin"), "origin()")
        return cls(url=url, spki_sha256=tuple(arguments.pop("spki_sha256")), **arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where a function's result is delivered after it has been let out."""

    url: str
    path: str

    def __post_init__(self) -> None:
        check_path(self.path, "deliver()")

    def resolved(self, settings: Mapping[str, str], *, used: dict[str, str]) -> Delivery:
        """Put settings into the URL and return the target with its origin in normal form."""
        return replace(self, url=check_origin(resolve_settings(self.url, settings, used=used), "deliver()"))

    def to_manifest(self) -> dict[str, Any]:
        """Describe this target in JSON."""
        return {"origin": self.url, "path": self.path}

    @classmethod
    def from_manifest(cls, described: Mapping[str, Any]) -> Delivery:
        """Rebuild a target from a manifest."""
        arguments = dict(described)
        return cls(url=check_origin(arguments.pop("origin"), "deliver()"), **arguments)


def origin(
    url: str,
    *,
    secrets: Mapping[str, str] | None = None,
    cache_seconds: int = 0,
    spki_sha256: list[str] | tuple[str, ...] = (),
    timeout_seconds: int = 5,
    max_response_bytes: int = 1 << 20,
    client_certificate: str | None = None,
) -> OriginRule:
    """Declare an origin that a function may call.

    Args:
        url: `https://host[:port]`, or `${SETTING}` to be filled in when the bundle is built.
        secrets: Header name to the name of a stored secret; the host adds the header to each call.
        cache_seconds: How long an answer to `get` may be reused, at most; 0 asks every time.
        spki_sha256: Accept only a server whose public key has one of these SHA-256 digests (hex).
        timeout_seconds: Limit for one call, retries included.
        max_response_bytes: Limit for one answer.
        client_certificate: Name of a stored secret with a certificate and its private key in PEM: the host
            shows it to the origin (mTLS).
    """
    return OriginRule(
        url=url,
        secrets=dict(secrets or {}),
        cache_seconds=cache_seconds,
        spki_sha256=tuple(spki_sha256),
        timeout_seconds=timeout_seconds,
        max_response_bytes=max_response_bytes,
        client_certificate=client_certificate,
    )


def deliver(url: str, *, path: str) -> Delivery:
    """Declare that the result is delivered to `url` + `path`, at least once, signed by the host.

    The delivery is stored together with the result and retried until the receiver has it; the receiver
    recognises a repetition by its constant delivery id.
    """
    return Delivery(url=url, path=path)


def resolve_settings(template: str, settings: Mapping[str, str], *, used: dict[str, str]) -> str:
    """Replace each `${NAME}` by its setting, and note in `used` which settings that took.

    Raises:
        ConfigurationError: A setting is not given.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in settings:
            raise ConfigurationError(
                f"the function needs the setting {name}",
                hint=f"give it when building: --set {name}=https://...",
            )
        used[name] = settings[name]
        return settings[name]

    return _SETTING.sub(value_of, template)


def _is_pin(value: object) -> bool:
    return isinstance(value, str) and _PIN.fullmatch(value) is not None


def _check_range(value: object, low: int, high: int, what: str) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigurationError(
            f"{what} of origin() cannot be used", hint=f"use a whole number, {low} to {high}"
        )
