"""Arrow record batches through a step: what an executor does, without Spark."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import pyarrow as pa

from cloister.columns import ROWS, Column, Patience
from cloister.errors import ConfigurationError, FunctionError
from cloister.faas import data_free, idempotency_key

if TYPE_CHECKING:
    from cloister_spark.connection import Connection
    from cloister_spark.steps import Step

__all__ = ["ARROW_TYPES", "Meter", "Work"]

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of the columns that one call reads, as they are in memory."""

ARROW_TYPES: Final[dict[str, pa.DataType]] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "bigint": pa.int64(),
    "double": pa.float64(),
}
"""What a column that is made here can be, by Spark's name."""


class Meter(Protocol):
    """Port: counts what executors do; Spark's accumulators stand behind it."""

    def add(self, **counts: int) -> None:
        """Add to counters by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step over any number of record batches, one request in flight, nothing read ahead of it.

    Attributes:
        step: What is done.
        into: The column that is made; one that exists is replaced.
        type: Its type, a name of `ARROW_TYPES`.
        error: The column with each row's error code, or None to fail where one row does.
        connection: How the host is reached.
        patience: How long an outage is waited out.
        run: Names the run: the same batch in the same run has its effect once, on whichever executor.
        meter: Told what was done.
    """

    step: Step
    into: str
    type: str
    error: str | None
    connection: Connection
    patience: Patience
    run: str
    meter: Meter

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Work on the batches of one partition.

        Raises:
            CloisterError: The host refused, or was away for longer than patience lasts; nothing that is
                raised carries data.
        """
        for batch in batches:
            for part in self._parts(batch):
                yield self._scrubbed(part)

    def _parts(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Cut a batch so that each part fits a call."""
        size = sum(batch.column(name).nbytes for name in self.step.columns)
        if batch.num_rows > 1 and (batch.num_rows > ROWS or size > MAX_BYTES):
            half = min(ROWS, batch.num_rows // 2) if batch.num_rows <= 2 * ROWS else ROWS
            yield from self._parts(batch.slice(0, half))
            yield from self._parts(batch.slice(half))
        else:
            yield batch

    def _scrubbed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        # Spark sends what a task raises to the driver and into logs, with messages and causes.
        try:
            return self._apply(batch)
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            clean = data_free(error)
        raise clean

    def _apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        given = {name: batch.column(name).to_pylist() for name in self.step.columns}
        client = None
        if self.step.asks:
            client = self.connection.client(told=lambda: self.meter.add(attested=1))
        key = self._key(given)
        column = self.patience.call(
            lambda: self.step.run(client, given, idempotency_key=key), told=lambda: self.meter.add(waits=1)
        )
        self.meter.add(rows=batch.num_rows, failed=len(column.errors), calls=int(self.step.asks))
        if column.errors and self.error is None:
            counts = Counter(column.errors.values())
            raise FunctionError(
                f"{len(column.errors)} of {batch.num_rows} rows failed "
                f"({', '.join(f'{code}: {count}' for code, count in sorted(counts.items()))})",
                hint="name an error column to see which",
            )
        return self._with(batch, column)

    def _key(self, given: dict[str, list[Any]]) -> str:
        """The same for the same batch of the same run, wherever a task is tried again; tells nothing.

        Args:
            given: Goes into a hash with the run's random name. The host keeps keys only as MACs.
        """
        content = json.dumps([repr(self.step), given], default=repr).encode()
        return idempotency_key("spark", self.run, hashlib.sha256(content).hexdigest())

    def _with(self, batch: pa.RecordBatch, column: Column) -> pa.RecordBatch:
        made: dict[str, pa.Array] = {}
        try:
            made[self.into] = pa.array(column.values, ARROW_TYPES[self.type])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            made = {}  # its message quotes the value
        if not made:
            raise ConfigurationError(
                f"the result has another type than {self.type}", hint="say which with `returns`"
            )
        if self.error is not None:
            # A row that failed before has no value now, and no error but the one it had.
            before = (
                batch.column(self.error).to_pylist()
                if self.error in batch.schema.names
                else [None] * batch.num_rows
            )
            codes = [column.errors.get(row, before[row]) for row in range(batch.num_rows)]
            made[self.error] = pa.array(codes, pa.string())
        arrays = {name: batch.column(place) for place, name in enumerate(batch.schema.names)}
        arrays.update(made)
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
