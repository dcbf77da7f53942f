"""How SQL values cross to a remote function and back.

A declaration names Python types; `Annotated[datetime, "DATETIME"]` names the SQL type where a Python type has
several. What a confidential function is sent, and lets out, is the same JSON either way.

Source: https://cloud.google.com/bigquery/docs/remote-functions#sql_type_encoding
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
import sys
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Final, Union, get_args, get_origin

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, OpenError
from cloister.reply import Token

__all__ = [
    "CONTEXT_TYPES",
    "MALFORMED",
    "MAX_CONTEXT_CHARS",
    "SqlType",
    "is_text",
    "sql_type",
]

MALFORMED: Final = "malformed"
EXACT: Final = 2**53
MAX_CONTEXT_CHARS: Final = 1024
INT64: Final = range(-(2**63), 2**63)
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
_ZONE: Final = r"(?:Z|[+-][0-9]{2}:[0-9]{2})"

Crossing = Callable[[Any], Any]
"""From JSON to JSON; raises ValueError for what is not of the type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlType:
    """One type of a remote function's arguments and result.

    Attributes:
        name: In SQL.
        python: What it is declared by.
        nullable: Whether a NULL is the function's business; otherwise it answers NULL without being called.
        read: From an argument, as BigQuery encodes it, to what the confidential function is sent.
        write: From what the confidential function lets out to a reply.
    """

    name: str
    python: type
    read: Crossing
    write: Crossing
    nullable: bool = False


def sql_type(annotation: Any, what: str) -> SqlType:
    """The SQL type that an annotation, or the name of an SQL type, stands for.

    Raises:
        ConfigurationError: It stands for none; `what` says where it was found.
    """
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return replace(sql_type(members[0], what), nullable=True)
    if get_origin(annotation) is Annotated:
        plain, *extras = get_args(annotation)
        names = [extra for extra in extras if isinstance(extra, str)]
        named = _BY_NAME.get(names[0].upper()) if len(names) == 1 else None
        if named is not None and named.python is plain:
            return named
    known: Mapping[Any, SqlType] = _BY_NAME if isinstance(annotation, str) else _BY_PYTHON
    key = annotation.upper() if isinstance(annotation, str) else annotation
    if not isinstance(key, Hashable) or key not in known:
        raise ConfigurationError(
            f"the type of {what} cannot be used",
            hint="use "
            + ", ".join(sorted(kind.__name__ for kind in _BY_PYTHON))
            + ', Annotated[datetime, "DATETIME"] or Annotated[Decimal, "BIGNUMERIC"]; '
            "for ARRAY and STRUCT declare dict and pass TO_JSON(x)",
        )
    return known[key]


def is_text(value: str) -> bool:
    """Whether a string has a UTF-8 form: JSON may carry lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sealed(value: Any) -> Sealed:
    try:
        return Sealed(value)
    except (OpenError, TypeError):
        raise ValueError(MALFORMED) from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not is_text(value):
        raise ValueError(MALFORMED)
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(MALFORMED)  # noqa: TRY004 (of data, not of a caller)
    return value


def _read_integer(value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if type(value) is not int or value not in INT64:
        raise ValueError(MALFORMED)
    return value


def _write_integer(value: Any) -> int | str:
    if type(value) is not int or value not in INT64:
        raise ValueError(MALFORMED)
    return value if abs(value) <= EXACT else str(value)


def _number(value: Any) -> float:
    if type(value) not in {int, float} or abs(value) > sys.float_info.max or not math.isfinite(value):
        raise ValueError(MALFORMED)
    return float(value)


def _base64(value: Any) -> str:
    base64.b64decode(_text(value), validate=True)
    return str(value)


def _json(value: Any) -> Any:
    try:
        _text(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except RecursionError:
        raise ValueError(MALFORMED) from None
    return value


def _decimal(digits: int, scale: int) -> Crossing:
    form = re.compile(rf"-?[0-9]{{1,{digits}}}(?:\.[0-9]{{1,{scale}}})?")

    def cross(value: Any) -> str:
        if type(value) in {int, float} and abs(value) < 10**digits:
            value = format(Decimal(repr(value)), "f")
        if not isinstance(value, str) or not form.fullmatch(value):
            raise ValueError(MALFORMED)
        return value

    return cross


def _moment(pattern: str, kind: type[dt.date | dt.time]) -> Crossing:
    form = re.compile(pattern)

    def cross(value: Any) -> str:
        if not isinstance(value, str) or not form.fullmatch(value):
            raise ValueError(MALFORMED)
        kind.fromisoformat(value)  # the thirteenth month is a ValueError too
        return value

    return cross


def _same(name: str, python: type, cross: Crossing) -> SqlType:
    return SqlType(name=name, python=python, read=cross, write=cross)


_KINDS: Final = (
    SqlType(name="STRING", python=Sealed, read=_sealed, write=_text),
    _same("STRING", Token, _text),
    _same("STRING", str, _text),
    SqlType(name="INT64", python=int, read=_read_integer, write=_write_integer),
    _same("FLOAT64", float, _number),
    _same("BOOL", bool, _boolean),
    _same("BYTES", bytes, _base64),
    _same("NUMERIC", Decimal, _decimal(29, 9)),
    _same("DATE", dt.date, _moment(_DATE, dt.date)),
    _same("TIMESTAMP", dt.datetime, _moment(f"{_DATE}T{_TIME}{_ZONE}", dt.datetime)),
    _same("TIME", dt.time, _moment(_TIME, dt.time)),
    _same("JSON", dict, _json),
)
_NAMED_ONLY: Final = (
    _same("BIGNUMERIC", Decimal, _decimal(39, 38)),
    _same("DATETIME", dt.datetime, _moment(f"{_DATE}T{_TIME}", dt.datetime)),
)
_BY_PYTHON: Final = {kind.python: kind for kind in _KINDS}
_BY_NAME: Final = {kind.name: kind for kind in (*_KINDS, *_NAMED_ONLY)}
CONTEXT_TYPES: Final = frozenset({str, int, bool, dt.date})
