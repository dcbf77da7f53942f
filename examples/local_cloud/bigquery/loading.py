"""Rows on their way into a table: streamed by `insertAll` or loaded from an uploaded file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import parquet

from local_cloud.bigquery.errors import ApiError, not_found, not_supported
from local_cloud.bigquery.types import Field

if TYPE_CHECKING:
    from local_cloud.bigquery.engine import Engine

__all__ = ["insert_all", "load", "split_multipart"]

Row = Mapping[str, Any]


def insert_all(engine: Engine, dataset: str, table: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Append the rows of a `tabledata.insertAll` request, all of them or none."""
    schema = engine.schema(dataset, table)
    decoded, errors = [], []
    for index, row in enumerate(body["rows"]):
        try:
            decoded.append(_decoded(schema, row["json"]))
        except ApiError as error:
            errors.append({"index": index, "errors": [error.to_proto()]})
    if not errors:
        engine.append(dataset, table, _arrow(schema, decoded))
    return {
        "kind": "bigquery#tableDataInsertAllResponse",
        **({"insertErrors": errors} if errors else {}),
    }


def load(engine: Engine, options: Mapping[str, Any], data: bytes) -> int:
    """Run a load job over uploaded bytes; the number of rows loaded.

    Raises:
        ApiError: The file does not match the schema, or a disposition forbids the load.
    """
    if options.get("sourceUris"):
        raise not_supported("loading from Cloud Storage")
    target = options["destinationTable"]
    dataset, table = target["datasetId"], target["tableId"]
    disposition = options.get("writeDisposition", "WRITE_APPEND")
    exists = table in engine.tables(dataset)
    declared = tuple(Field.from_rest(field) for field in options.get("schema", {}).get("fields", ()))
    schema = declared or (engine.schema(dataset, table) if exists else ())
    rows = _read(options, data, schema)
    if not exists:
        if options.get("createDisposition") == "CREATE_NEVER":
            raise not_found(f"Table {dataset}.{table}")
        engine.create_table(dataset, table, schema or _detected(rows))
    elif disposition == "WRITE_EMPTY" and engine.read_table(dataset, table).rows:
        raise ApiError(409, "duplicate", f"Already Exists: Table {dataset}.{table}")
    engine.append(dataset, table, rows, truncate=disposition == "WRITE_TRUNCATE")
    return int(rows.num_rows)


def split_multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take a multipart/related upload apart into its metadata and its bytes."""
    header = Message()
    header["Content-Type"] = content_type
    delimiter = b"\r\n--" + str(header.get_param("boundary")).encode()
    _, metadata, data, _ = (b"\r\n" + body).split(delimiter)
    return json.loads(_content(metadata)), _content(data)


def _content(part: bytes) -> bytes:
    return part.partition(b"\r\n\r\n")[2]


def _read(options: Mapping[str, Any], data: bytes, schema: Sequence[Field]) -> pa.Table:
    source = options.get("sourceFormat", "CSV")
    if source == "PARQUET":
        return parquet.read_table(io.BytesIO(data))
    if source == "NEWLINE_DELIMITED_JSON":
        rows: Iterable[Row] = (json.loads(line) for line in data.splitlines() if line.strip())
        if not schema:
            return pa.Table.from_pylist(list(rows))
    elif source == "CSV" and schema:
        rows = _csv_rows(options, data, schema)
    else:
        raise not_supported(f"{source} without a schema")
    return _arrow(schema, [_decoded(schema, row) for row in rows])


def _csv_rows(options: Mapping[str, Any], data: bytes, schema: Sequence[Field]) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(data.decode()), delimiter=options.get("fieldDelimiter", ","))
    for number, line in enumerate(lines):
        if line and number >= int(options.get("skipLeadingRows", 0)):
            names = [field.name for field in schema]
            cells = [value or None for value in line]
            if len(cells) > len(names):
                raise ApiError(400, "invalid", "a CSV row has more fields than the schema")
            yield dict(zip(names, cells, strict=False))


def _decoded(schema: Sequence[Field], row: Row) -> dict[str, Any]:
    if unknown := row.keys() - {field.name for field in schema}:
        raise ApiError(400, "invalid", f"no such field: {min(unknown)}")
    return {field.name: field.decode(row.get(field.name)) for field in schema}


def _arrow(schema: Sequence[Field], rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(field.name, field.arrow) for field in schema]))


def _detected(rows: pa.Table) -> tuple[Field, ...]:
    names = {
        pa.int64(): "INT64",
        pa.float64(): "FLOAT64",
        pa.bool_(): "BOOL",
        pa.string(): "STRING",
        pa.binary(): "BYTES",
    }
    return tuple(
        Field(name=column.name, kind=names.get(column.type, str(column.type))) for column in rows.schema
    )
