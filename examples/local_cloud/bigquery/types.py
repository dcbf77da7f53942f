"""BigQuery's types: their names and values in SQL, REST, DuckDB, Arrow and remote functions.

Sources: https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema and
https://cloud.google.com/bigquery/docs/remote-functions#limitations (JSON encoding of SQL types).
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from local_cloud.bigquery.errors import ApiError, not_supported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Field"]

LOSSLESS_INTEGER = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scalar:
    """One SQL type.

    Attributes:
        rest: Its legacy name, which the REST API uses in schemas.
        decode: From JSON (rows, parameters, replies) to Python.
        cell: From Python to the string of a result cell.
        wire: From Python to JSON in the call of a remote function.
    """

    rest: str
    duckdb: str
    arrow: pa.DataType
    decode: Callable[[Any], Any]
    cell: Callable[[Any], str] = str
    wire: Callable[[Any], Any] = lambda value: value


def _integer_on_wire(value: int) -> int | str:
    return value if abs(value) <= LOSSLESS_INTEGER else str(value)


def _numeric_on_wire(value: decimal.Decimal) -> int | float | str:
    if value == value.to_integral_value() and abs(value) <= LOSSLESS_INTEGER:
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)


def _float_on_wire(value: float) -> float | str:
    return value if math.isfinite(value) else _float_cell(value)


def _float_cell(value: float) -> str:
    return (
        repr(value) if math.isfinite(value) else str(value).replace("nan", "NaN").replace("inf", "Infinity")
    )


def _boolean(value: Any) -> bool:
    known = {"true": True, "false": False}
    return value if isinstance(value, bool) else known[value.lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _iso(value: Any) -> str:
    return str(value.isoformat())


def _timestamp(value: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(value.replace(" UTC", "Z"))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _microseconds(value: dt.datetime) -> str:
    epoch = dt.datetime.fromtimestamp(0, dt.UTC)
    return str((value - epoch) // dt.timedelta(microseconds=1))


def _utc(value: dt.datetime) -> str:
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


SCALARS: Mapping[str, _Scalar] = {
    "STRING": _Scalar(rest="STRING", duckdb="VARCHAR", arrow=pa.string(), decode=_text),
    "BYTES": _Scalar(
        rest="BYTES",
        duckdb="BLOB",
        arrow=pa.binary(),
        decode=lambda value: base64.b64decode(value, validate=True),
        cell=_base64,
        wire=_base64,
    ),
    "INT64": _Scalar(rest="INTEGER", duckdb="BIGINT", arrow=pa.int64(), decode=int, wire=_integer_on_wire),
    "FLOAT64": _Scalar(
        rest="FLOAT",
        duckdb="DOUBLE",
        arrow=pa.float64(),
        decode=float,
        cell=_float_cell,
        wire=_float_on_wire,
    ),
    "BOOL": _Scalar(
        rest="BOOLEAN",
        duckdb="BOOLEAN",
        arrow=pa.bool_(),
        decode=_boolean,
        cell=lambda value: str(value).lower(),
    ),
    "NUMERIC": _Scalar(
        rest="NUMERIC",
        duckdb="DECIMAL(38,9)",
        arrow=pa.decimal128(38, 9),
        decode=lambda value: decimal.Decimal(str(value)),
        wire=_numeric_on_wire,
    ),
    "DATE": _Scalar(
        rest="DATE",
        duckdb="DATE",
        arrow=pa.date32(),
        decode=dt.date.fromisoformat,
        cell=_iso,
        wire=_iso,
    ),
    "DATETIME": _Scalar(
        rest="DATETIME",
        duckdb="TIMESTAMP",
        arrow=pa.timestamp("us"),
        decode=dt.datetime.fromisoformat,
        cell=_iso,
        wire=_iso,
    ),
    "TIME": _Scalar(
        rest="TIME",
        duckdb="TIME",
        arrow=pa.time64("us"),
        decode=dt.time.fromisoformat,
        cell=_iso,
        wire=_iso,
    ),
    "TIMESTAMP": _Scalar(
        rest="TIMESTAMP",
        duckdb="TIMESTAMPTZ",
        arrow=pa.timestamp("us", "UTC"),
        decode=_timestamp,
        cell=_microseconds,
        wire=_utc,
    ),
    "JSON": _Scalar(
        rest="JSON",
        duckdb="JSON",
        arrow=pa.json_(),
        decode=lambda value: value if isinstance(value, str) else json.dumps(value),
        wire=json.loads,
    ),
}
STANDARD_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
FROM_DUCKDB = {
    "VARCHAR": "STRING",
    "BLOB": "BYTES",
    "BOOLEAN": "BOOL",
    "DOUBLE": "FLOAT64",
    "FLOAT": "FLOAT64",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "JSON": "JSON",
    '"NULL"': "INT64",  # as BigQuery types a bare NULL
    **dict.fromkeys(
        [
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "BIGINT",
            "HUGEINT",
            "UTINYINT",
            "USMALLINT",
            "UINTEGER",
            "UBIGINT",
        ],
        "INT64",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column, a member of a STRUCT, an argument or a parameter: a name and a type."""

    name: str
    kind: str
    repeated: bool = False
    required: bool = False
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        if self.kind != "STRUCT" and self.kind not in SCALARS:
            raise not_supported(f"the type {self.kind}")

    @classmethod
    def from_rest(cls, resource: Mapping[str, Any]) -> Self:
        """Read a `TableFieldSchema`."""
        kind = resource["type"].upper()
        mode = resource.get("mode", "NULLABLE").upper()
        return cls(
            name=resource["name"],
            kind=STANDARD_NAMES.get(kind, kind),
            repeated=mode == "REPEATED",
            required=mode == "REQUIRED",
            fields=tuple(cls.from_rest(member) for member in resource.get("fields", ())),
        )

    @classmethod
    def from_duckdb(cls, name: str, type_: Any, *, required: bool = False) -> Self:
        """Read the type of a DuckDB column."""
        if type_.id == "list":
            inner = cls.from_duckdb(name, type_.children[0][1])
            return cls(name=name, kind=inner.kind, repeated=True, fields=inner.fields)
        if type_.id == "struct":
            members = tuple(cls.from_duckdb(*member) for member in type_.children)
            return cls(name=name, kind="STRUCT", required=required, fields=members)
        if type_.id == "decimal":
            return cls(name=name, kind="NUMERIC", required=required)
        return cls(name=name, kind=FROM_DUCKDB.get(str(type_), str(type_)), required=required)

    def to_rest(self) -> dict[str, Any]:
        """Write a `TableFieldSchema`."""
        mode = "REPEATED" if self.repeated else "REQUIRED" if self.required else "NULLABLE"
        if self.kind != "STRUCT":
            return {"name": self.name, "type": SCALARS[self.kind].rest, "mode": mode}
        members = [member.to_rest() for member in self.fields]
        return {"name": self.name, "type": "RECORD", "mode": mode, "fields": members}

    @property
    def duckdb(self) -> str:
        """The type in DuckDB's SQL."""
        if self.kind == "STRUCT":
            one = "STRUCT(" + ", ".join(f'"{member.name}" {member.duckdb}' for member in self.fields) + ")"
        else:
            one = SCALARS[self.kind].duckdb
        return f"{one}[]" if self.repeated else one

    @property
    def arrow(self) -> pa.DataType:
        """The type in Arrow."""
        if self.kind == "STRUCT":
            one = pa.struct([(member.name, member.arrow) for member in self.fields])
        else:
            one = SCALARS[self.kind].arrow
        return pa.list_(one) if self.repeated else one

    def decode(self, value: Any) -> Any:
        """Read a JSON value of this type.

        Raises:
            ApiError: It is none; the message names the column, not the value.
        """
        try:
            if self.repeated:
                return [self._decode_one(item) for item in value or ()]
            if value is None and self.required:
                raise ValueError
            return self._decode_one(value)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
            raise ApiError(400, "invalid", f"no {self.kind} value in {self.name}") from None

    def _decode_one(self, value: Any) -> Any:
        if value is None:
            return None
        if self.kind != "STRUCT":
            return SCALARS[self.kind].decode(value)
        return {member.name: member.decode(value.get(member.name)) for member in self.fields}

    def cell(self, value: Any) -> dict[str, Any]:
        """Write a result cell."""
        if self.repeated:
            return {"v": [{"v": self._cell_of_one(item)} for item in value or ()]}
        return {"v": self._cell_of_one(value)}

    def _cell_of_one(self, value: Any) -> Any:
        if value is None:
            return None
        if self.kind != "STRUCT":
            return SCALARS[self.kind].cell(value)
        return {"f": [member.cell(value[member.name]) for member in self.fields]}

    def wire(self, value: Any) -> Any:
        """Write an argument for a remote function, which takes scalars only."""
        return None if value is None else SCALARS[self.kind].wire(value)
