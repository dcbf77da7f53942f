"""How many values a msgpack message holds, counted before any of them is made.

A byte of msgpack can stand for an empty list, which takes seventy bytes: a message of 32 MB from tenant code
would become gigabytes in the host. Extensions, which become other things than JSON has, are refused.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_CONTAINERS", "MAX_VALUES", "UnfitError", "check_weight", "walk"]

MAX_VALUES: Final = 1 << 20
MAX_CONTAINERS: Final = 1 << 18

# What follows a first byte: so many bytes of a number, or so many of a length.
_FIXED: Final = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8} | {
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8
}  # fmt: skip
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS: Final = bytes([0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8])
_ARRAY: Final = {0xDC: 2, 0xDD: 4}
_MAP: Final = {0xDE: 2, 0xDF: 4}


class UnfitError(Exception):
    """The message holds too many values or an extension, or is no message."""


def check_weight(message: bytes | bytearray) -> None:
    """Let a message through that is plain data and not too heavy to decode.

    Raises:
        UnfitError: It holds more than `MAX_VALUES` values or `MAX_CONTAINERS` lists and maps, or extensions.
    """
    # Every value takes at least a byte, and most messages have none that could begin an extension.
    if len(message) > MAX_CONTAINERS or len(message.translate(None, _EXTENSIONS)) < len(message):
        walk(message, max_values=MAX_VALUES, max_containers=MAX_CONTAINERS)


def walk(message: bytes | bytearray, *, max_values: int, max_containers: int) -> None:
    """Go through a message and count; what is announced counts before it is there.

    Raises:
        UnfitError: There are more than that, or this is no message.
    """
    values = containers = at = 0
    expected = 1
    while expected:
        expected -= 1
        skip, more = _step(message, at)
        at += skip
        if more >= 0:
            containers += 1
            expected += more
        values += 1
        if values + expected > max_values or containers > max_containers:
            raise UnfitError


def _step(message: bytes | bytearray, at: int) -> tuple[int, int]:
    """Bytes of the value at a place, without its members; the number of members, or -1 if it has none."""
    if at >= len(message):
        raise UnfitError
    first = message[at]
    if first < 0x80 or first >= 0xE0:  # noqa: PLR2004 - the format's own numbers
        return 1, -1
    if first < 0xC0:  # noqa: PLR2004 - as above
        if first >= 0xA0:  # noqa: PLR2004 - as above
            return 1 + (first & 31), -1
        members = first & 15
        return 1, members if first >= 0x90 else 2 * members  # noqa: PLR2004 - as above
    if first in _FIXED:
        return 1 + _FIXED[first], -1
    for table, factor in ((_SIZED, 0), (_ARRAY, 1), (_MAP, 2)):
        if first in table:
            width = table[first]
            number = int.from_bytes(message[at + 1 : at + 1 + width], "big")
            if factor:
                return 1 + width, factor * number
            return 1 + width + number, -1
    raise UnfitError
