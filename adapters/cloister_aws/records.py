"""Events with records, one call a record, and the partial batch response.

Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html,
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

from cloister.errors import ConfigurationError
from cloister.faas import scrubbed
from cloister_aws.events import BATCHED, Source, record_id, records_of, source_of

if TYPE_CHECKING:
    import logging

__all__ = ["Processor", "process_records"]

Call = Callable[[Any, tuple[str, ...]], Any]
"""Handles one record, which this names over all its deliveries."""


class Processor(Protocol):
    """Powertools' `BatchProcessor`."""

    def __call__(
        self, records: list[Any], handler: Callable[..., Any], lambda_context: Any = None
    ) -> AbstractContextManager[Any]:
        """Take records and what handles one of them."""
        ...

    def process(self) -> Any:
        """Handle each record."""
        ...

    def response(self) -> Any:
        """The partial batch response."""
        ...


def process_records(event: Any, call: Call, *, processor: Processor | None, context: Any) -> Any:
    """Call for each record, and answer as the event's source wants it.

    An SQS FIFO queue, a Kinesis shard and a DynamoDB stream keep their order: after the first failure
    nothing more is handled, and what was not handled counts as failed. Sources without a partial batch
    response get every record tried; then the first error is raised, and AWS sends the event again.

    Raises:
        ConfigurationError: The event has no records of a known source.
    """
    source, records = source_of(event), records_of(event)
    if processor is not None:
        return _with_powertools(source, records, call, processor, context)
    failed: list[str] = []
    results: list[Any] = []
    first: BaseException | None = None
    for position, record in enumerate(records):
        error = _failure(source, record, call, results)
        if error is None:
            continue
        first = first or error
        failed.append(record_id(source, record))
        _log().warning(
            "record failed: %s %s: %s",
            source.value,
            failed[-1] if source in BATCHED else "",
            error,
            extra={"event_source": source.value, **_error_fields(error)},
        )
        if source is not Source.SQS and source in BATCHED:
            break  # Lambda goes on from the first failure
        if _is_fifo(source, record):
            failed.extend(record_id(source, later) for later in records[position + 1 :])
            break
    if source in BATCHED:
        return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}
    if first is not None:
        raise first
    return results


def _log() -> logging.Logger:
    import logging  # noqa: PLC0415 (5 ms of a cold start)

    return logging.getLogger("cloister.aws")


def _error_fields(error: BaseException) -> Mapping[str, Any]:
    from cloister.logs import error_fields  # noqa: PLC0415 (as above)

    return error_fields(error)


def _failure(source: Source, record: Any, call: Call, results: list[Any]) -> BaseException | None:
    try:
        results.append(scrubbed(lambda: call(record, _key(source, record))))
    except Exception as error:  # noqa: BLE001 (already without data; one record must not fail the others)
        return error
    return None


def _with_powertools(
    source: Source, records: list[Any], call: Call, processor: Processor, context: Any
) -> Any:
    if source not in BATCHED:
        raise ConfigurationError("Powertools' BatchProcessor knows SQS, Kinesis and DynamoDB streams only")

    def handle(record: Any) -> Any:
        # It keeps what is raised, and prints it when a whole batch fails: so scrubbed already here.
        return scrubbed(lambda: call(record, _key(source, _raw(record))))

    with processor(records, handle, context):
        processor.process()
    return processor.response()


def _raw(record: Any) -> Mapping[str, Any]:
    """The record that Powertools made an instance of its data class, or of a model, from."""
    raw: Any = getattr(record, "raw_event", record)
    if not isinstance(raw, Mapping):
        raw = record.model_dump()
    return cast("Mapping[str, Any]", raw)


def _key(source: Source, record: Mapping[str, Any]) -> tuple[str, ...]:
    origin = record.get("eventSourceARN") or record.get("EventSubscriptionArn") or ""
    return (source.value, str(origin), record_id(source, record))


def _is_fifo(source: Source, record: Mapping[str, Any]) -> bool:
    return source is Source.SQS and str(record.get("eventSourceARN", "")).endswith(".fifo")
