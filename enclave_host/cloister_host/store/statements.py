"""Constant SQL, compiled once for a driver, and what comes back.

SQLAlchemy writes the driver's SQL; running it costs nothing beyond the driver's own call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import TextClause
from sqlalchemy.engine import Dialect

__all__ = ["Rows", "Statement", "compiled"]

_EXPANDING: Final = re.compile(r"__\[POSTCOMPILE_(\w+)\]")


class Statement:
    """One statement in the words of one driver.

    Args:
        source: With named parameters; expanding ones become lists of names when it runs.
        dialect: Of the driver.
    """

    __slots__ = ("_lists", "_named", "_sql")

    def __init__(self, source: TextClause, dialect: Dialect) -> None:
        self._sql = str(source.compile(dialect=dialect))
        if dialect.name == "sqlite":
            # Its one writer has locked everything already.
            self._sql = self._sql.removesuffix(" SKIP LOCKED").removesuffix(" FOR UPDATE")
        self._lists = tuple(_EXPANDING.findall(self._sql))
        self._named = "%({})s" if dialect.paramstyle == "pyformat" else ":{}"

    def bind(self, parameters: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """The SQL and its parameters, every list of values spread out."""
        if not self._lists:
            return self._sql, parameters
        sql, spread = self._sql, dict(parameters)
        for name in self._lists:
            values = spread.pop(name)
            names = [f"{name}_{index}" for index in range(len(values))]
            spread.update(zip(names, values, strict=True))
            places = ", ".join(map(self._named.format, names))
            # An empty list matches nothing.
            sql = sql.replace(f"__[POSTCOMPILE_{name}]", places or "SELECT NULL WHERE 1 = 0")
        return sql, spread


@cache
def compiled(source: TextClause, dialect: Dialect) -> Statement:
    """Compile a constant of the program, once."""
    return Statement(source, dialect)


class Rows:
    """The rows a statement gave, all of them read; the part of SQLAlchemy's result that the host uses.

    Attributes:
        rowcount: How many rows a writing statement touched.
    """

    __slots__ = ("_columns", "_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], columns: Sequence[Any] | None, rowcount: int) -> None:
        self._rows = rows
        self._columns = columns
        self.rowcount: Final = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        """Every row."""
        return self._rows

    def first(self) -> Any:
        """The first row, or None."""
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        """The only row."""
        [row] = self._rows
        return row

    def scalar(self) -> Any:
        """The first column of the first row, or None."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """The first column of the only row."""
        return self.one()[0]

    def scalars(self) -> Sequence[Any]:
        """The first column of every row."""
        return [row[0] for row in self._rows]

    def mappings(self) -> Rows:
        """The same rows, each by the names of its columns."""
        names = [column[0] for column in self._columns or ()]
        return Rows([dict(zip(names, row, strict=True)) for row in self._rows], None, self.rowcount)
