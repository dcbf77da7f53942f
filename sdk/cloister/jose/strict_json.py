"""JSON that means one thing: no duplicate member, no NaN, no second reading (RFC 8725 section 2.4)."""

from __future__ import annotations

import json
from math import isinf
from typing import Any, Final, NoReturn

__all__ = ["dump_compact", "load", "load_object"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise ValueError("a number is out of range")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load(raw: bytes) -> Any:
    """Parse one JSON text in UTF-8.

    Raises:
        ValueError: It is not JSON, has a duplicate member or nests too deeply. The message quotes nothing.
    """
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("not strict JSON") from None


def load_object(raw: bytes) -> dict[str, Any]:
    """Parse one JSON object in UTF-8; errors as `load`."""
    value = load(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - malformed input, not a caller's type error
    return value


def dump_compact(value: Any) -> bytes:
    """Encode as UTF-8 without white space, members in the order given.

    Raises:
        ValueError: The value has NaN, a lone surrogate or a cycle in it.
        TypeError: The value has something in it that is not JSON.
    """
    return _ENCODER.encode(value).encode("utf-8")
