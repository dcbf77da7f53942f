"""How long an answer is and takes: rounded up, so that neither tells what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from cloister.function.outputs import Boolean, Enum, Number, OutputClass, Record

__all__ = ["answer_length", "next_tick", "padding"]

_FIRST_BUCKET: Final = 4096
_AROUND: Final = 64  # what the reply puts around a result
_USUAL: Final = 3072  # a result without its values: its receipt with what it discloses


def padding(result: msgspec.Struct, output: OutputClass, values: Sequence[Any]) -> str:
    """Spaces that give a result one of few lengths, and one and the same for every value of a narrow class.

    Args:
        result: What is replied, without padding.
        output: The class of the values in it.
        values: The values, one a row.
    """
    length = len(msgspec.json.encode(result))
    widest = _widest(output)
    filler = 0
    if widest is not None:
        brackets = len(values) + 1 if values else 2
        filler = max(len(values) * widest + brackets - len(msgspec.json.encode(values)), 0)
    return " " * (max(_bucket(length + filler), answer_length(output, len(values))) - length)


def answer_length(output: OutputClass, count: int) -> int:
    """How long `count` answers of a class are with what goes with them; errors are padded to the same.

    Known for narrow classes only; of others it is the least.
    """
    return _bucket(_USUAL + count * ((_widest(output) or 0) + 1))


def _bucket(length: int) -> int:
    bucket = _FIRST_BUCKET
    while bucket - _AROUND < length:
        bucket *= 2
    return bucket - _AROUND


def next_tick(seconds: float, pad_milliseconds: int) -> float:
    """How long something that took `seconds` appears to take."""
    if not pad_milliseconds:
        return seconds
    ticks = -int(-seconds * 1000 // pad_milliseconds)
    return max(ticks, 1) * pad_milliseconds / 1000


def _widest(output: OutputClass) -> int | None:
    """Most characters that a value of the class has as JSON; None for classes without bound or narrowness."""
    match output:
        case Boolean():
            return len("false")
        case Enum(values=words):
            return max(len(msgspec.json.encode(word)) for word in words)
        case Number(minimum=low, maximum=high, step=step):
            digits = max(len(str(int(abs(bound)))) for bound in (low, high))
            places = max(-int(Decimal(str(part)).as_tuple().exponent) for part in (low, step))
            return digits + max(places, 1) + len("-.")
        case Record(fields=fields):
            widths = [_widest(member) for member in fields.values()]
            names = sum(len(json.dumps(name)) + len(":,") for name in fields) + len("{}")
            return None if None in widths else names + sum(width for width in widths if width)
        case _:
            return None
