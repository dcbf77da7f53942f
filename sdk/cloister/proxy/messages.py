"""JSON to the arguments of `Client`'s methods, and their results to JSON.

What a parameter takes is read off its annotation, so that the proxy offers what the client has. Bytes are
canonical base64url without padding. What is sealed may be bytes too: `"type": "octets"` beside it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from cloister import jose
from cloister.errors import CloisterError, ConfigurationError
from cloister.jose import strict_json
from cloister.proxy.problems import error_members
from cloister.receipts import Receipt
from cloister.reply import Results

__all__ = ["KINDS", "OCTETS_KINDS", "Kind", "as_json", "read_body", "typed"]

MAX_DEPTH: Final = 100
_SURROGATE: Final = b"\\ud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of argument.

    Attributes:
        schema: Its JSON Schema.
        read: From JSON; raises `ValueError` without quoting what it was given.
    """

    schema: Mapping[str, Any]
    read: Callable[[Any], Any]


def read_body(raw: bytes) -> dict[str, Any]:
    """The members of a request's body; an empty one has none.

    Raises:
        ConfigurationError: It is not one strict JSON object, nests too deeply or holds what is not text.
    """
    if not raw:
        return {}
    try:
        members = strict_json.load_object(raw)
        if _SURROGATE in raw.lower():
            strict_json.dump_compact(members)  # a lone surrogate is no text, and seals as none
    except ValueError:
        raise ConfigurationError("the body is not one strict JSON object in UTF-8") from None
    if _nests_deeper(members, MAX_DEPTH):
        raise ConfigurationError(f"the body nests deeper than {MAX_DEPTH} levels")
    return members


def as_json(value: Any) -> Any:
    """A result as JSON: bytes as base64url, receipts and errors by their members, other values by theirs."""
    if isinstance(value, Receipt):
        value = value.to_json()
    elif isinstance(value, CloisterError):
        value = error_members(value)
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(member) for member in value]
    return jose.b64url_encode(value) if isinstance(value, bytes) else value


def typed(result: Any) -> dict[str, Any]:
    """Opened values with what they were sealed as, since JSON has no bytes."""
    if isinstance(result, list):
        return {"values": as_json(result), "types": [_type(value) for value in result], **receipts(result)}
    return {"value": as_json(result), "type": _type(result)}


def receipts(result: Any) -> dict[str, Any]:
    """The receipts that came with a result."""
    return {"receipts": as_json(result.receipts)} if isinstance(result, Results) else {}


def _type(value: Any) -> str:
    return "octets" if isinstance(value, bytes) else "text" if isinstance(value, str) else "json"


def _nests_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in {int, float}:
        raise ValueError
    return float(value)


def _octets(value: Any) -> bytes:
    return jose.b64url_decode(_text(value))


def _each(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def each(value: Any) -> Any:
        return [read(item) for item in _list(value)]

    return each


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _members(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {name: read(member) for name, member in _object(value).items()}


_text: Final = _exactly(str)
_list: Final = _exactly(list)
_object: Final = _exactly(dict)


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _optional(kind: Kind) -> Kind:
    return Kind(schema={"anyOf": [kind.schema, {"type": "null"}]}, read=_or_none(kind.read))


_TEXT: Final = Kind(schema={"type": "string"}, read=_text)
_OCTETS: Final = Kind(schema={"type": "string", "contentEncoding": "base64url"}, read=_octets)
_ANY: Final = Kind(schema={}, read=lambda value: value)
_TEXTS: Final = Kind(schema=_array(_TEXT.schema), read=_each(_text))
_MANY_OCTETS: Final = Kind(schema=_array(_OCTETS.schema), read=_each(_octets))
_OBJECT: Final = Kind(schema={"type": "object"}, read=_object)
_CONTEXT: Final = Kind(
    schema={"type": "object", "additionalProperties": {"type": "string"}}, read=_members(_text)
)
_CONTEXTS: Final = Kind(schema=_array(_optional(_CONTEXT).schema), read=_each(_or_none(_members(_text))))
_COLUMNS: Final = Kind(
    schema={"type": "object", "additionalProperties": {"type": "array"}}, read=_members(_list)
)

KINDS: Final[Mapping[str, Kind]] = {
    "Value": _ANY,
    "Any": _ANY,
    "Sequence[Value]": Kind(schema=_array({}), read=_list),
    "bool": Kind(schema={"type": "boolean"}, read=_exactly(bool)),
    "int": Kind(schema={"type": "integer"}, read=_exactly(int)),
    "float": Kind(schema={"type": "number"}, read=_number),
    "str": _TEXT,
    "str | None": _optional(_TEXT),
    "Job | str": _TEXT,
    "bytes": _OCTETS,
    "Sequence[str]": _TEXTS,
    "Sequence[str] | None": _optional(_TEXTS),
    "Sequence[bytes]": _MANY_OCTETS,
    "Sequence[bytes] | None": _optional(_MANY_OCTETS),
    "Context | None": _optional(_CONTEXT),
    "Sequence[Context | None] | None": _optional(_CONTEXTS),
    "Mapping[str, Any]": _OBJECT,
    "Mapping[str, Any] | None": _optional(_OBJECT),
    "Mapping[str, Sequence[str]] | None": _optional(
        Kind(schema={"type": "object", "additionalProperties": _TEXTS.schema}, read=_members(_each(_text)))
    ),
    "Sequence[Any]": _COLUMNS,
}
"""Kinds by the annotation of the parameter, as it is written in the client."""

OCTETS_KINDS: Final[Mapping[str, Kind]] = {"Value": _OCTETS, "Sequence[Value]": _MANY_OCTETS}
"""The same for values that are bytes."""
