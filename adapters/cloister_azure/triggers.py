"""What triggered a function, and what names that over all its deliveries.

Azure delivers at least once. A message that comes again must repeat no effect, so calls of the enclave carry
idempotency keys made of what the platform keeps constant: the broker's numbers, not the producer's.

Source: https://learn.microsoft.com/azure/azure-functions/functions-reliable-event-processing
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from cloister.errors import ConfigurationError
from cloister_azure.bodies import original

__all__ = ["delivery_of", "is_http", "records_of"]

Parts = tuple[str, ...]


def is_http(value: Any) -> bool:
    """Whether the caller waits for an HTTP response."""
    import azure.functions as func  # noqa: PLC0415 (whoever is called by Azure has it loaded)

    return isinstance(value, func.HttpRequest)


def delivery_of(value: Any) -> Parts | None:
    """What names a delivery and all its repetitions, and nothing else; None where the platform gives no such.

    Args:
        value: What the trigger's parameter was given; a batch is its records together.
    """
    import azure.functions as func  # noqa: PLC0415 (as above)

    value = original(value)  # what was sealed on the way in is another text each time
    if isinstance(value, list):
        several = [delivery_of(record) for record in value]
        known = [parts for parts in several if parts is not None]
        return (
            ("batch", *(_digest(parts) for parts in known)) if known and len(known) == len(several) else None
        )
    kinds: Mapping[type, Callable[[Any], Parts | None]] = {
        func.QueueMessage: _queue,
        func.ServiceBusMessage: _service_bus,
        func.EventHubEvent: _event_hub,
        func.InputStream: _blob,
        func.TimerRequest: _timer,
        func.EventGridEvent: _event_grid,
    }
    return next((name(value) for kind, name in kinds.items() if isinstance(value, kind)), None)


def records_of(value: Any) -> list[Any]:
    """The records of a batch.

    Raises:
        ConfigurationError: The trigger gave no batch.
    """
    if not isinstance(value, list):
        raise ConfigurationError(
            "the trigger gives no batch", hint='per="record" is for triggers with cardinality="many"'
        )
    return value


def _queue(message: Any) -> Parts | None:
    return None if message.id is None else ("queue", str(message.id))


def _service_bus(message: Any) -> Parts | None:
    # The message id is the producer's choice and may stand on several; the broker counts each one.
    if message.sequence_number is None:
        return None
    return (
        "service-bus",
        str(message.sequence_number),
        _time(message.enqueued_time_utc),
        str(message.message_id),
    )


def _event_hub(event: Any) -> Parts | None:
    # Numbers count within a partition, which a batch does not name for each event: the digest tells apart.
    if event.sequence_number is None:
        return None
    digest = hashlib.sha256(event.get_body()).hexdigest()
    parts = (event.sequence_number, _time(event.enqueued_time), event.partition_key or "", digest)
    return ("event-hub", *map(str, parts))


_VERSION: Final = ("ETag", "LastModified", "ContentLength", "Length")


def _blob(stream: Any) -> Parts | None:
    # A blob that is written anew under its name is another delivery.
    properties = stream.blob_properties or {}
    version = [f"{name}={properties[name]}" for name in _VERSION if properties.get(name)]
    place = stream.uri or stream.name
    return ("blob", str(place), *version) if place and version else None


def _timer(request: Any) -> Parts | None:
    status = request.schedule_status
    if not isinstance(status, Mapping) or not status.get("Next"):
        return None
    return ("timer", str(status.get("Last", "")), str(status["Next"]))


def _event_grid(event: Any) -> Parts | None:
    return ("event-grid", str(event.topic), str(event.id)) if event.id else None


def _time(moment: Any) -> str:
    return moment.isoformat() if moment is not None else ""


def _digest(parts: Parts) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
