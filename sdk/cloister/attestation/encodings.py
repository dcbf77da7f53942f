"""Bytes written as text, each in the one canonical form: no signature covers how they are written."""

from __future__ import annotations

import base64

__all__ = ["any_base64", "lower_hex"]

_URL_ALPHABET = str.maketrans("+/", "-_")


def lower_hex(text: str) -> bytes:
    """Bytes from lower-case hex.

    Raises:
        ValueError: It is something else.
    """
    value = bytes.fromhex(text)
    if value.hex() != text:
        raise ValueError
    return value


def any_base64(text: str) -> bytes:
    """Bytes from base64 of either alphabet, padded or not.

    Raises:
        ValueError: It is something else.
    """
    bare = text.rstrip("=").translate(_URL_ALPHABET)
    value = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    if base64.urlsafe_b64encode(value).decode().rstrip("=") != bare:
        raise ValueError
    return value
