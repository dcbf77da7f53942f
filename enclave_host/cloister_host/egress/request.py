"""From what a function asks to what is sent: hostile until it has passed here."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from cloister.errors import ConfigurationError, LimitError
from cloister.function.names import check_header
from cloister_host.functions.frames import Ask
from cloister_host.secrets import SecretValue

__all__ = ["Outgoing", "outgoing", "secret_header"]

_METHODS: Final = frozenset({"GET", "POST"})
# RFC 3986 section 3.3 and 3.4, percent-escapes included; no fragment. One slash first: '//' names a host.
_TARGET: Final = re.compile(r"/(?!/)(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")
_MAX_TARGET_CHARS: Final = 8192
_MAX_HEADERS: Final = 32
_MAX_HEADER_CHARS: Final = 8192
_MAX_BODY_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request that may be sent. Secrets are not in it yet."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


def outgoing(ask: Ask, secrets: Collection[str]) -> Outgoing:
    """Check what a function asks for.

    Args:
        ask: From the worker.
        secrets: Names of the headers in which the host puts secrets.

    Raises:
        ConfigurationError: It cannot be sent.
        LimitError: It is too large.
    """
    if ask.method not in _METHODS:
        raise ConfigurationError("origins are asked by GET or POST", hint="use .get() or .post()")
    if not _TARGET.fullmatch(ask.path):
        raise ConfigurationError(
            "the path cannot be sent",
            hint="start it with one '/', escape what is not plain, use params= for a query",
        )
    query = urlencode(sorted(ask.params.items()))
    target = ask.path + ("?&"["?" in ask.path] + query if query else "")
    if len(target) > _MAX_TARGET_CHARS or len(ask.body) > _MAX_BODY_BYTES:
        raise LimitError("the request is too large", hint="8192 characters of path and query, 4 MiB of body")
    reserved = {name.lower() for name in secrets}
    headers = {check_header(name, "the request").lower(): value for name, value in ask.headers.items()}
    if len(headers) != len(ask.headers) or len(headers) > _MAX_HEADERS or reserved & headers.keys():
        raise ConfigurationError(
            "a header is repeated, reserved for a secret, or one too many",
            hint="the host adds secrets by itself",
        )
    if not all(
        _HEADER_VALUE.fullmatch(value) and len(value) <= _MAX_HEADER_CHARS for value in headers.values()
    ):
        raise ConfigurationError(
            "a header value cannot be sent", hint="printable ASCII, up to 8192 characters"
        )
    return Outgoing(
        method=ask.method, target=target, headers=tuple(sorted(headers.items())), body=bytes(ask.body)
    )


def secret_header(name: str, secret: SecretValue) -> str:
    """The value of a secret as a header, at the last moment before it is sent.

    Raises:
        ConfigurationError: It cannot be a header.
    """
    try:
        value = secret.value.reveal().decode("ascii")
    except UnicodeDecodeError:
        value = ""
    if not value or not _HEADER_VALUE.fullmatch(value):
        raise ConfigurationError(
            f"the secret for {name} cannot be sent as a header",
            hint="store printable ASCII without line breaks",
        )
    return value
