"""Confidential functions, one row or many, now or later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from cloister.errors import CloisterError, ConfigurationError
from cloister.operations.driving import Flow, Operations, operation
from cloister.operations.flows import Context, Flows, read
from cloister.protocol.session import Wait
from cloister.reply import BatchReply, Job, Reply

__all__ = ["ROWS_PER_REQUEST", "FunctionOperations", "in_parts", "stream"]

Rows = Sequence[Mapping[str, Any]]

ROWS_PER_REQUEST: Final = 10_000
FIRST_POLL_SECONDS: Final = 0.1
LONGEST_POLL_SECONDS: Final = 5.0


class FunctionOperations(Operations):
    """The part of a client that calls confidential functions."""

    @operation
    def invoke(
        self,
        function: str,
        /,
        *,
        context: Context | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **inputs: Any,
    ) -> Flow[Reply]:
        """Call a confidential function.

        Args:
            function: `name@alias`, or `name@DIGEST` (64 hexadecimal digits) for one digest.
            context: Values for the context names that the function's manifest asks for.
            idempotency_key: Constant over the caller's own retries; effects happen once under it.
            purpose: What for. It is recorded, and grants can depend on it.
            inputs: The function's inputs by name.

        Raises:
            FunctionError: The function failed or broke its output class.
        """
        payload = {"function": function, "inputs": inputs, "context": dict(context or {})}
        result = yield from self._flows.call(
            "function.invoke", payload, idempotency_key=idempotency_key, purpose=purpose
        )
        return read(Reply.from_result, result)

    @operation
    def invoke_batch(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **columns: Sequence[Any],
    ) -> Flow[BatchReply]:
        """Call a batch function: one column an input, one context column a context name. See `invoke`."""
        payload = {
            "function": function,
            "columns": {name: list(column) for name, column in columns.items()},
            "context": {name: list(column) for name, column in (context or {}).items()},
        }
        result = yield from self._flows.call(
            "function.invoke", payload, idempotency_key=idempotency_key, purpose=purpose
        )
        return read(BatchReply.from_result, result)

    @operation
    def start(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Any] | None = None,
        batch: bool = False,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **inputs: Any,
    ) -> Flow[Job]:
        """Call a function without waiting for it.

        Args:
            function: As in `invoke`.
            context: As in `invoke`, or as in `invoke_batch`.
            batch: Whether the inputs are columns.
            idempotency_key: A second start under it gives the first one's job.
            purpose: As in `invoke`.
            inputs: The function's inputs by name.
        """
        given = "columns" if batch else "inputs"
        payload = {"function": function, given: inputs, "context": dict(context or {})}
        result = yield from self._flows.call(
            "function.start", payload, idempotency_key=idempotency_key, purpose=purpose
        )
        return read(Job.from_result, result)

    @operation
    def job(self, job: Job | str) -> Flow[Job]:
        """How far a job is, with its reply once it is done."""
        return (yield from _job(self._flows, "job.get", job))

    @operation
    def wait(self, job: Job | str, *, timeout_seconds: float = 300.0) -> Flow[Job]:
        """Ask after a job until it has ended, or the time is up; see `Job.result`."""
        clock = self._flows.clock
        until, pause = clock() + timeout_seconds, FIRST_POLL_SECONDS
        while not (found := (yield from _job(self._flows, "job.get", job))).ended and clock() < until:
            yield Wait(seconds=pause)
            pause = min(2 * pause, LONGEST_POLL_SECONDS)
        return found

    @operation
    def cancel(self, job: Job | str) -> Flow[Job]:
        """End a job; what it has done outside before stays done."""
        return (yield from _job(self._flows, "job.cancel", job))


def _job(flows: Flows, op: str, job: Job | str) -> Flow[Job]:
    result = yield from flows.call(op, {"job": job.id if isinstance(job, Job) else job})
    return read(Job.from_result, result)


def stream(
    flows: Flows,
    function: str,
    rows: Rows,
    context: Sequence[str],
    *,
    idempotency_key: str,
    purpose: str | None,
) -> Flow[tuple[list[BatchReply], CloisterError | None]]:
    """One request of a stream: its replies, and what ended it before its time."""
    names = list(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ConfigurationError("the rows of a stream have different members")
    columns = {name: [row[name] for row in rows] for name in names}
    payload = {
        "function": function,
        "columns": {name: column for name, column in columns.items() if name not in context},
        "context": {name: columns[name] for name in context if name in columns},
    }
    result = yield from flows.call(
        "function.stream", payload, idempotency_key=idempotency_key, purpose=purpose
    )
    replies = [read(BatchReply.from_result, frame) for frame in result["frames"]]
    return replies, result["error"]


def in_parts(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[Rows]:
    """Rows in lists of at most so many; takes no more from the source than the next one."""
    if size < 1:
        raise ConfigurationError("rows_per_request is at least 1")
    source = iter(rows)
    while part := list(islice(source, size)):
        yield part
