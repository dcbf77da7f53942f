"""What can be sealed, and how it becomes bytes: `cty` is `octets`, `text` or `json` by the value's type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from cloister.envelope.sealed import Sealed
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose.strict_json import dump_compact, load

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["JSON", "MAX_VALUE_BYTES", "Padded", "Value", "decode_value", "encode_value"]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Value: TypeAlias = "bytes | JSON"

MAX_VALUE_BYTES: Final = 32 * 1024 * 1024
_MAX_DEPTH: Final = 64
_PADDED_BYTES: Final = 64


class Padded:
    """JSON whose sealed length tells a power of two instead of its own length: spaces follow it."""

    __slots__ = ("value",)

    def __init__(self, value: JSON) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Padded()"


def encode_value(value: Value | Padded) -> tuple[str, bytes]:
    """Return `cty` and the bytes to seal.

    Raises:
        ConfigurationError: The value is sealed already, or is not bytes, text or JSON.
        LimitError: It has more than `MAX_VALUE_BYTES` bytes.
    """
    cty, content = _encode(value)
    if len(content) > MAX_VALUE_BYTES:
        raise LimitError(
            f"a value has at most {MAX_VALUE_BYTES} bytes", hint="seal it as an object: cloister.objects"
        )
    return cty, content


def _encode(value: Value | Padded) -> tuple[str, bytes]:
    if isinstance(value, bytes):
        return "octets", value
    try:
        if isinstance(value, Padded):
            content = _encode_json(value.value)
            return "json", content.ljust(max(_PADDED_BYTES, 1 << (len(content) - 1).bit_length()))
        if isinstance(value, str):
            if isinstance(value, Sealed):
                raise ConfigurationError("the value is sealed already")
            return "text", value.encode("utf-8")
        return "json", _encode_json(value)
    except ValueError:  # a lone surrogate, NaN; the cause would quote the value
        raise ConfigurationError("the value has NaN, Infinity or a lone surrogate in it") from None


def _encode_json(value: JSON) -> bytes:
    _check_json(value, _MAX_DEPTH)
    return dump_compact(value)


def _check_json(value: object, depth: int) -> None:
    """Refuse what JSON would change silently: names that are not strings, types that are not JSON."""
    members: Iterable[object]
    if isinstance(value, dict):
        members = value.values()
        if not all(isinstance(name, str) for name in value):
            raise ConfigurationError("a name in the value is not a string")
    elif isinstance(value, (list, tuple)):
        members = value
    elif value is None or isinstance(value, (str, int, float)):
        return
    else:
        raise ConfigurationError(f"cannot seal a {type(value).__name__}", hint="bytes, str or JSON types")
    if depth == 0:
        raise ConfigurationError(f"the value nests deeper than {_MAX_DEPTH} levels")
    for member in members:
        _check_json(member, depth - 1)


def decode_value(cty: str, content: bytes) -> Value:
    """Turn opened bytes back into the value; raises `OpenError` if they are not what `cty` says."""
    if cty == "octets":
        return content
    try:
        if cty == "text":
            return content.decode("utf-8")
        value: JSON = load(content)
    except ValueError:
        raise OpenError from None
    return value
