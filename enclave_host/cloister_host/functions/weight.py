"""How many values a msgpack message holds, counted before any of them is made.

A byte of msgpack can stand for an empty list, which takes seventy bytes: a message of 32 MB from tenant code
would become gigabytes in the host.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_CONTAINERS", "MAX_VALUES", "TooManyValuesError", "check_weight", "walk"]

MAX_VALUES: Final = 1 << 20
MAX_CONTAINERS: Final = 1 << 18

# What follows a first byte: (bytes of a number, or of a length; whether it is a length, and of what).
_FIXED: Final = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8} | {
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17
}  # fmt: skip
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_ARRAY: Final = {0xDC: 2, 0xDD: 4}
_MAP: Final = {0xDE: 2, 0xDF: 4}


class TooManyValuesError(Exception):
    """The message holds too many values, or is no message."""


def check_weight(message: bytes | bytearray) -> None:
    """Let a message through that is not too heavy to decode.

    Raises:
        TooManyValuesError: It holds more than `MAX_VALUES` values or `MAX_CONTAINERS` lists and maps.
    """
    # Every value takes at least a byte.
    if len(message) > MAX_CONTAINERS:
        walk(message, max_values=MAX_VALUES, max_containers=MAX_CONTAINERS)


def walk(message: bytes | bytearray, *, max_values: int, max_containers: int) -> None:
    """Go through a message and count; what is announced counts before it is there.

    Raises:
        TooManyValuesError: There are more than that, or this is no message.
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
            raise TooManyValuesError


def _step(message: bytes | bytearray, at: int) -> tuple[int, int]:
    """Bytes of the value at a place, without its members; the number of members, or -1 if it has none."""
    if at >= len(message):
        raise TooManyValuesError
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
    for table, factor in ((_SIZED, 0), (_EXTENSION, 0), (_ARRAY, 1), (_MAP, 2)):
        if first in table:
            width = table[first]
            number = int.from_bytes(message[at + 1 : at + 1 + width], "big")
            if factor:
                return 1 + width, factor * number
            return 1 + width + number + (1 if table is _EXTENSION else 0), -1
    raise TooManyValuesError
