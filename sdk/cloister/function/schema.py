"""Describe Python types as JSON Schema, for manifests: no values are converted here.

Covers what a function's inputs and outputs are made of: plain JSON types, bytes, dates and decimals,
`Literal` and enums, `list`, `tuple[T, ...]`, `dict[str, T]`, unions, TypedDict, dataclasses and (where
msgspec is installed) msgspec structs.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import sys
import types
import typing
import uuid
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints, is_typeddict

from cloister.errors import ConfigurationError

__all__ = ["allows_null", "describe_type", "fits", "is_text"]

_SIMPLE: Final[dict[object, dict[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    dt.date: {"type": "string", "format": "date"},
    dt.datetime: {"type": "string", "format": "date-time"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    Any: {},
    object: {},
}
_MAX_DEPTH: Final = 16
_JSON_TYPES: Final[dict[str, Any]] = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def describe_type(annotation: Any, *, depth: int = 0) -> dict[str, Any]:  # noqa: PLR0911 - one return per form
    """Return the JSON Schema of a type.

    Raises:
        ConfigurationError: The type has no JSON form, or contains itself.
    """
    if depth > _MAX_DEPTH:
        raise ConfigurationError(
            "a type contains itself or is nested too deeply", hint="flatten it: at most 16 levels"
        )
    simple = _SIMPLE.get(annotation) if annotation.__hash__ is not None else None
    if simple is not None:
        return dict(simple)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0], depth=depth)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in {Union, types.UnionType}:
        return {"anyOf": [describe_type(member, depth=depth + 1) for member in arguments]}
    if annotation is list or annotation is dict:
        return {"type": "array" if annotation is list else "object"}
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is ...):  # noqa: PLR2004 - (T, ...)
        return {"type": "array", "items": describe_type(arguments[0], depth=depth + 1)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": describe_type(arguments[1], depth=depth + 1)}
    if inspect.isclass(annotation):
        return _describe_class(annotation, depth=depth)
    raise _no_form(annotation)


def allows_null(schema: Mapping[str, Any]) -> bool:
    """Whether None is one of the values of a described type."""
    return schema in ({}, {"type": "null"}) or any(allows_null(member) for member in schema.get("anyOf", ()))


def is_text(schema: Mapping[str, Any]) -> bool:
    """Whether a described type is plain `str`."""
    return schema == _SIMPLE[str]


def fits(schema: Mapping[str, Any], value: object) -> bool:  # noqa: PLR0911 - one return per form
    """Whether a value, as JSON (or bytes), is of a described type. String formats are not looked into."""
    if "anyOf" in schema:
        return any(fits(member, value) for member in schema["anyOf"])
    if "enum" in schema:
        return any(type(value) is type(member) and value == member for member in schema["enum"])
    expected = _JSON_TYPES.get(schema.get("type", ""), object)
    if "contentEncoding" in schema:
        expected = str | bytes
    if not isinstance(value, expected) or (isinstance(value, bool) and expected not in {bool, object}):
        return False
    if isinstance(value, list) and "items" in schema:
        return all(fits(schema["items"], item) for item in value)
    if isinstance(value, dict) and "additionalProperties" in schema:
        return all(fits(schema["additionalProperties"], item) for item in value.values())
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"].items()
        return all(name in value for name in schema["required"]) and all(
            fits(member, value[name]) for name, member in known if name in value
        )
    return True


def _describe_class(cls: type, *, depth: int) -> dict[str, Any]:
    if issubclass(cls, enum.Enum):
        return {"enum": [member.value for member in cls]}
    if is_typeddict(cls):
        required = cls.__required_keys__  # type: ignore[attr-defined]  # TypedDict sets it
    elif dataclasses.is_dataclass(cls):
        required = frozenset(
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
    elif _is_msgspec_struct(cls):
        struct: Any = cls
        optional = struct.__struct_fields__[len(struct.__struct_fields__) - len(struct.__struct_defaults__) :]
        required = frozenset(struct.__struct_fields__) - frozenset(optional)
    else:
        raise _no_form(cls)
    hints = {
        name: hint
        for name, hint in get_type_hints(cls, include_extras=True).items()
        if get_origin(hint) is not typing.ClassVar
    }
    return {
        "type": "object",
        "title": cls.__name__,
        "properties": {name: describe_type(hint, depth=depth + 1) for name, hint in hints.items()},
        "required": sorted(required),
    }


def _is_msgspec_struct(cls: type) -> bool:
    # A class can only be a struct if msgspec was imported; the SDK does not depend on it.
    msgspec = sys.modules.get("msgspec")
    return msgspec is not None and issubclass(cls, msgspec.Struct)


def _no_form(annotation: Any) -> ConfigurationError:
    name = getattr(annotation, "__name__", str(annotation))
    return ConfigurationError(
        f"the type {name} has no JSON form",
        hint="use plain JSON types, dataclasses, TypedDict or msgspec structs",
    )
