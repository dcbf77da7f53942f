"""The shapes of names that appear in manifests, and the errors that teach them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError
from cloister.names import check_name

__all__ = ["check_context", "check_header", "check_name", "check_origin", "check_path"]

_CONTEXT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@/-]*)?")
_MAX_CONTEXT_NAMES: Final = 8

# Headers that frame or route a request: who sets them decides where it ends (RFC 9112 section 6).
_FRAMING_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def check_context(names: object, what: str) -> tuple[str, ...] | None:
    """Return the context names of a sealed value, in order, or None for a value without context."""
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, list | tuple):
        raise ConfigurationError(
            f"the context of {what} is not a list of names", hint='write context=["member_id"]'
        )
    if not names:
        raise ConfigurationError(
            f"the context of {what} is empty", hint="name at least one field, or leave context out"
        )
    if len(names) > _MAX_CONTEXT_NAMES or len(set(names)) != len(names):
        raise ConfigurationError(
            f"the context of {what} repeats a name or has more than {_MAX_CONTEXT_NAMES}",
            hint="name each field once",
        )
    if not all(isinstance(name, str) and _CONTEXT_NAME.fullmatch(name) for name in names):
        raise ConfigurationError(
            f"a context name of {what} cannot be used", hint="use a-z, 0-9 and '_', starting with a letter"
        )
    return tuple(names)


def check_origin(value: object, what: str) -> str:
    """Return an origin in its one normal form: https, lower-case ASCII host, no default port (RFC 6454)."""
    hint = "write scheme, host and optional port only, for example 'https://api.example.com'"
    # urlsplit drops line breaks and tabs silently.
    if not isinstance(value, str) or not value.isprintable():
        raise ConfigurationError(f"the origin of {what} is not plain text", hint=hint)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"the origin of {what} is not a URL", hint=hint) from None
    if parts.scheme != "https":
        raise ConfigurationError(
            f"the origin of {what} is not https", hint="functions reach the outside over https only"
        )
    host = parts.hostname or ""
    if (
        parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or not _HOST.fullmatch(host)
    ):
        raise ConfigurationError(f"the origin of {what} cannot be used", hint=hint)
    if port == 0:
        raise ConfigurationError(f"the origin of {what} has port 0", hint=hint)
    return f"https://{host}" if port in {None, 443} else f"https://{host}:{port}"


def check_path(value: object, what: str) -> str:
    """Return an absolute path without query, escapes or empty first segment."""
    if not isinstance(value, str) or len(value) > 1024 or not _PATH.fullmatch(value):  # noqa: PLR2004 - a plain cap
        raise ConfigurationError(
            f"the path of {what} cannot be used",
            hint="write an absolute path such as '/api/pins', without query",
        )
    return value


def check_header(value: object, what: str) -> str:
    """Return a header name that a function or a manifest may set (RFC 9110 section 5.1)."""
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise ConfigurationError(
            f"a header name of {what} cannot be used", hint="use a name such as 'X-Api-Key'"
        )
    if value.lower() in _FRAMING_HEADERS:
        raise ConfigurationError(
            f"a header of {what} frames or routes the request", hint="the host sets it; remove it"
        )
    return value
