"""Base64url as JOSE wants it: no padding, no foreign character, no dangling bit (RFC 7515 section 2)."""

from __future__ import annotations

import binascii
from typing import Final

__all__ = ["b64url_decode", "b64url_encode"]

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
# "+", "/" and "=" belong to other alphabets: turn them into a byte that strict decoding refuses.
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
# By length modulo four: the padding to add and the last characters whose unused bits are zero.
_PADDING: Final = (b"", b"", b"==", b"=")
_LAST: Final = ("", "", "AQgw", "AEIMQUYcgkosw048")


def b64url_encode(data: bytes) -> str:
    """Encode bytes; the result has exactly one decoding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """Decode the one encoding that `b64url_encode` gives; anything else is refused.

    Raises:
        ValueError: The text is not canonical unpadded base64url. The message carries none of it.
    """
    remainder = len(text) & 3
    if remainder and (remainder == 1 or text[-1] not in _LAST[remainder]):
        raise ValueError("not canonical base64url")
    try:
        return binascii.a2b_base64(
            text.encode("ascii").translate(_FROM_URL) + _PADDING[remainder], strict_mode=True
        )
    except ValueError:  # binascii.Error and UnicodeEncodeError; both quote their input
        raise ValueError("not canonical base64url") from None
