"""Seal a column before it is loaded, so that no SQL ever sees the plaintext."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloister.columns import ROWS, context_text, seal
from cloister.errors import ConfigurationError
from cloister.faas import shared_client

if TYPE_CHECKING:
    from cloister.faas.fields import Sealer

__all__ = ["seal_column"]


def seal_column(
    rows: Iterable[Mapping[str, Any]],
    column: str,
    *,
    key: str,
    context: Sequence[str] = (),
    client: Sealer | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows with one column sealed, ready for any load of `google-cloud-bigquery`.

        sealed = seal_column(rows, "ssn", key="ssn", context=["member_id"])
        bigquery_client.load_table_from_json(sealed, "acme.members").result()

    Rows are sealed in groups, so memory stays bounded however many there are. NULL stays NULL.

    Args:
        rows: One mapping a row, from column name to value.
        column: The column to seal.
        key: The tenant's key.
        context: Columns that each value is bound to; a sealed value copied to another row does not open
            there. Name the same ones in the confidential function's input.
        client: By default the process's `cloister.Client`, made from the settings.

    Raises:
        ConfigurationError: A row lacks a column, or a context column is NULL or has no one spelling.
    """
    sealer = client if client is not None else shared_client()
    iterator = iter(rows)
    while group := list(itertools.islice(iterator, ROWS)):
        values = [_cell(row, column) for row in group]
        bound = [
            None if value is None else _context(row, context)
            for row, value in zip(group, values, strict=True)
        ]
        sealed = seal(sealer, values, key=key, contexts=bound if context else None)
        if sealed.errors:
            raise ConfigurationError(
                f"a value of the column {column!r} has no form in JSON", hint="cast it to text before"
            )
        for row, value in zip(group, sealed.values, strict=True):
            yield {**row, column: value}


def _context(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    context = {}
    for name in names:
        value = _cell(row, name)
        if value is None:
            raise ConfigurationError(
                f"the context column {name!r} is NULL", hint="a context is a fixed value"
            )
        context[name] = context_text(value)
    return context


def _cell(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise ConfigurationError(f"a row has no column {name!r}")
    return row[name]
