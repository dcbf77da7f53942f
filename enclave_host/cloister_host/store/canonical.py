"""Canonical JSON (RFC 8785, JCS) for the host's own records, at the speed of msgspec.

The host's records hold strings, integers, booleans, nulls, lists and maps with ASCII keys. For these
msgspec's sorted encoding and JCS are the same bytes; a property test compares the two.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from cloister.errors import ConfigurationError
from cloister.jose import b64url_encode

__all__ = ["canonical", "digest", "utf8"]

_ENCODER = msgspec.json.Encoder(order="sorted")


def canonical(record: Any) -> bytes:
    """Return the canonical bytes of one of the host's own records."""
    return _ENCODER.encode(record)


def digest(data: bytes) -> str:
    """Return the base64url SHA-256 of `data`."""
    return b64url_encode(hashlib.sha256(data).digest())


def utf8(text: str) -> bytes:
    """Encode text that came from outside.

    Raises:
        ConfigurationError: It holds a lone surrogate, which JSON can carry and UTF-8 cannot.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("a text holds half of a surrogate pair", hint="send valid Unicode") from None
