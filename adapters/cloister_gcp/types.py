"""How SQL values cross to a remote function and back.

Source: https://cloud.google.com/bigquery/docs/remote-functions#sql_type_encoding
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, OpenError
from cloister.reply import Token

__all__ = [
    "CONTEXT_TYPES",
    "MALFORMED",
    "MAX_CONTEXT_CHARS",
    "SQL_TYPES",
    "check_type",
    "context_text",
    "from_sql",
    "is_text",
    "to_sql",
]

SQL_TYPES: Final[dict[type, str]] = {
    Sealed: "STRING",
    Token: "STRING",
    str: "STRING",
    int: "INT64",
    float: "FLOAT64",
    bool: "BOOL",
}
CONTEXT_TYPES: Final = frozenset({str, int, bool})
MALFORMED: Final = "malformed"
EXACT: Final = 2**53
MAX_CONTEXT_CHARS: Final = 1024
INT64: Final = range(-(2**63), 2**63)
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")


def check_type(kind: object, what: str) -> type:
    """Return a type that has an SQL type, else raise which there are."""
    if not isinstance(kind, type) or kind not in SQL_TYPES:
        raise ConfigurationError(
            f"the type of {what} cannot be used",
            hint="use " + ", ".join(sorted(known.__name__ for known in SQL_TYPES)),
        )
    return kind


def from_sql(value: Any, kind: type) -> Any:
    """One argument as BigQuery encodes it, as the Python value.

    Raises:
        ValueError: It is not of that type, or not a sealed value.
    """
    match value:
        case str() if kind is Sealed:
            return _sealed(value)
        case str() if (kind is Token or kind is str) and is_text(value):
            return kind(value)
        case bool() if kind is bool:
            return value
        case int() if kind is int and not isinstance(value, bool):
            return value
        case str() if kind is int and _DIGITS.fullmatch(value) and int(value) in INT64:
            return int(value)
        case int() | float() if kind is float and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise ValueError(MALFORMED)


def is_text(value: str) -> bool:
    """Whether a string has a UTF-8 form: JSON may carry lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sealed(text: str) -> Sealed:
    try:
        return Sealed(text)
    except OpenError:
        raise ValueError(MALFORMED) from None


def to_sql(value: Any, kind: type) -> Any:
    """One result as BigQuery decodes it.

    Raises:
        ConfigurationError: The function lets out something else than the declared type.
    """
    if value is None:
        return None
    good: dict[type, Callable[[Any], bool]] = {
        bool: lambda v: isinstance(v, bool),
        int: lambda v: type(v) is int and v in INT64,
        float: lambda v: type(v) in {int, float},
    }
    if not good.get(kind, lambda v: isinstance(v, str))(value):
        raise ConfigurationError(
            f"the function's output is not of the declared SQL type {SQL_TYPES[kind]}",
            hint="make `returns` agree with the function's output class",
        )
    return str(value) if kind is int and abs(value) > EXACT else value


def context_text(value: object) -> str:
    """A column's value as the text that a sealed value is bound to.

    Raises:
        ConfigurationError: Only text, whole numbers and booleans have one spelling everywhere.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise ConfigurationError(
        "a context column has a type without one spelling", hint="cast it to STRING or INT64"
    )
