"""A column that was worked on, and the text that a value is bound to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cloister.errors import ConfigurationError, EvidenceError, UnavailableError

__all__ = ["ROWS", "Column", "context_text", "filled"]

ROWS: Final = 10_000
"""The most rows of one call: the host's limit for tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What became of a column.

    Attributes:
        values: One a row, in order; None where the row was null or has an error.
        errors: The code of `cloister.errors`, or of the policy, by row.
    """

    values: list[Any] = field(repr=False)
    errors: dict[int, str]

    @classmethod
    def spread(
        cls, rows: int, places: Sequence[int], values: Sequence[Any], errors: Mapping[int, str]
    ) -> Self:
        """The answer to a call on some rows of a column, as the whole column.

        Args:
            rows: How many the column has.
            places: Which of them were sent.
            values: What came back, one for each that was sent.
            errors: Codes, by position in what was sent.

        Raises:
            EvidenceError: The answer is one to another number of rows.
            UnavailableError: Some rows wait for something that cannot answer now.
        """
        if len(values) != len(places) or not errors.keys() <= set(range(len(places))):
            raise EvidenceError("the enclave answered another number of rows than it was asked")
        if UnavailableError.code in errors.values():
            raise UnavailableError("something that the function depends on cannot answer now")
        column: list[Any] = [None] * rows
        for position, place in enumerate(places):
            if position not in errors:
                column[place] = values[position]
        return cls(values=column, errors={places[position]: code for position, code in errors.items()})


def filled(columns: Iterable[Sequence[Any]], rows: int) -> list[int]:
    """The rows that have a value in every column."""
    columns = list(columns)
    return [row for row in range(rows) if all(column[row] is not None for column in columns)]


def context_text(value: object) -> str:
    """A column's value as the text that a sealed value is bound to.

    Raises:
        ConfigurationError: Only text, whole numbers, booleans and dates have one spelling everywhere.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.isoformat()
    raise ConfigurationError(
        "a context column has a type without one spelling", hint="cast it to STRING or INT64"
    )
