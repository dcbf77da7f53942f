"""The plaintext of a backup: a sequence of records, each a CBOR array behind its length (SPEC section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final, Protocol

from cloister.errors import OpenError

__all__ = ["MAX_RECORD_BYTES", "Begin", "End", "Record", "Rows", "TableOf", "encode", "read_records"]

MAX_RECORD_BYTES: Final = 256 * 1024 * 1024
LENGTH_BYTES: Final = 4
VERSION: Final = 1
_IS_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}").fullmatch

Value = str | bytes | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The first record.

    Attributes:
        backup: The backup's id, as in the manifest.
        deployment: Whose rows follow.
        migrations: Name and digest of every migration of the schema they stood in, in order.
    """

    backup: str
    deployment: str
    migrations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOf:
    """A table begins; its rows follow."""

    name: str
    columns: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of the table that began last, values in the order of its columns."""

    table: TableOf
    rows: Sequence[Sequence[Value]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last record: how many rows of each table there were."""

    rows: Mapping[str, int]


Record = Begin | TableOf | Rows | End


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def encode(record: Record) -> bytes:
    """One record, with its length before it."""
    import cbor2  # noqa: PLC0415 (30 ms, and only backups and evidence need it)

    match record:
        case Begin():
            members: list[Any] = ["backup", VERSION, record.backup, record.deployment]
            members.append([[name, digest] for name, digest in record.migrations.items()])
        case TableOf():
            members = ["table", record.name, list(record.columns)]
        case Rows():
            members = ["rows", [list(row) for row in record.rows]]
        case End():
            members = ["end", dict(record.rows)]
    encoded = cbor2.dumps(members)
    assert len(encoded) <= MAX_RECORD_BYTES, "one row is larger than a record can be"
    return len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded


def read_records(source: _Readable) -> Iterator[Record]:
    """Read records up to the last, in constant memory; what they count is compared.

    Raises:
        OpenError: This is not the content of a backup, or it is not whole.
    """
    counts: dict[str, int] = {}
    table: TableOf | None = None
    first = True
    while True:
        record = _parse(_read(source), table)
        if first != isinstance(record, Begin):
            raise _malformed()
        first = False
        match record:
            case TableOf():
                if record.name in counts:
                    raise _malformed()
                table, counts[record.name] = record, 0
            case Rows():
                counts[record.table.name] += len(record.rows)
            case End():
                if dict(record.rows) != counts or source.read(1):
                    raise OpenError("the backup is not whole", hint="make another one")
                yield record
                return
        yield record


def _read(source: _Readable) -> bytes:
    prefix = _exactly(source, LENGTH_BYTES)
    length = int.from_bytes(prefix, "big")
    if length > MAX_RECORD_BYTES:
        raise _malformed()
    return _exactly(source, length)


def _exactly(source: _Readable, length: int) -> bytes:
    buffer = BytesIO()
    while (missing := length - buffer.tell()) > 0:
        part = source.read(missing)
        if not part:
            raise _malformed()
        buffer.write(part)
    return buffer.getvalue()


def _parse(raw: bytes, table: TableOf | None) -> Record:
    import cbor2  # noqa: PLC0415 (as above)

    stream = BytesIO(raw)
    try:
        members = cbor2.load(stream)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        raise _malformed() from None
    if stream.read(1) or not isinstance(members, list):
        raise _malformed()
    match members:
        case ["backup", 1, str(backup), str(deployment), list(pairs)] if all(map(_is_pair, pairs)):
            return Begin(backup=backup, deployment=deployment, migrations=dict(map(tuple, pairs)))
        case ["table", str(name), list(columns)] if _are_names([name, *columns]) and columns:
            return TableOf(name=name, columns=columns)
        case ["rows", list(rows)] if table is not None:
            width = len(table.columns)
            if all(isinstance(row, list) and len(row) == width and all(map(_is_value, row)) for row in rows):
                return Rows(table=table, rows=rows)
        case ["end", dict(counts)] if all(
            isinstance(name, str) and type(count) is int for name, count in counts.items()
        ):
            return End(rows=counts)
    raise _malformed()


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and list(map(type, pair)) == [str, str]


def _are_names(names: Sequence[Any]) -> bool:
    return len(set(map(str, names[1:]))) == len(names) - 1 and all(
        isinstance(name, str) and _IS_NAME(name) is not None for name in names
    )


def _is_value(value: Any) -> bool:
    return value is None or type(value) in {str, bytes, int}


def _malformed() -> OpenError:
    return OpenError("this is not the content of a backup", hint="was it made by a newer version?")
