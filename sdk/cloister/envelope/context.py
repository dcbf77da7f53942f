"""Bind a value to where it belongs: the `ctx` header member.

`ctx` is a MAC under a key derived from the content-encryption key, so that nobody without that key can
guess the context or see that two values share one.
"""

from __future__ import annotations

import hmac
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final

import rfc8785
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.errors import ConfigurationError
from cloister.jose import b64url_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ContextMac", "canonical_context"]

_INFO: Final = b"cloister.ctx.v1"
_TAG_BYTES: Final = 16
_MAX_CONTEXT_BYTES: Final = 16 * 1024


def canonical_context(context: Mapping[str, str]) -> bytes:
    """Return the JCS form (RFC 8785) of a flat string-to-string context.

    Raises:
        ConfigurationError: It is not flat, has something else than strings in it, or is too long.
    """
    try:
        quoted = [f"{encode_basestring(name)}:{encode_basestring(context[name])}" for name in sorted(context)]
        text = "{" + ",".join(quoted) + "}"
        # JCS sorts by UTF-16 code unit, which for ASCII is the order of Python's strings.
        raw = text.encode("ascii") if text.isascii() else rfc8785.dumps(dict(context))
    except (TypeError, AttributeError, ValueError):  # the cause would quote the context
        raise ConfigurationError("a context is a flat mapping of text to text") from None
    if len(raw) > _MAX_CONTEXT_BYTES:
        raise ConfigurationError(f"a context has at most {_MAX_CONTEXT_BYTES} bytes")
    return raw


class ContextMac:
    """The `ctx` of values under one content-encryption key."""

    __slots__ = ("_mac",)

    def __init__(self, cek: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(cek)
        self._mac = hmac.new(key, digestmod="sha256")

    def ctx(self, context: Mapping[str, str]) -> str:
        """Return the header member for a context: 22 characters of base64url."""
        mac = self._mac.copy()
        mac.update(canonical_context(context))
        return b64url_encode(mac.digest()[:_TAG_BYTES])
