"""What sent an event: told from the members that AWS documents for it, and from nothing else.

An event that lacks one of them is `DIRECT`: a direct invocation, a Step Functions task, a custom
authorizer, or anything else whose answer belongs to the handler alone.

Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from cloister.errors import ConfigurationError

__all__ = ["BATCHED", "HTTP", "RECORDS", "Source", "record_id", "records_of", "source_of"]


class Source(Enum):
    """An event source with an event and an answer of its own."""

    DIRECT = "direct"
    REST_API = "api-gateway-v1"
    HTTP_API = "api-gateway-v2"
    FUNCTION_URL = "function-url"
    WEBSOCKET = "api-gateway-websocket"
    LOAD_BALANCER = "load-balancer"
    LATTICE = "vpc-lattice"
    EVENTBRIDGE = "eventbridge"
    SQS = "sqs"
    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"
    SNS = "sns"
    S3 = "s3"


HTTP: Final = frozenset(
    {
        Source.REST_API,
        Source.HTTP_API,
        Source.FUNCTION_URL,
        Source.WEBSOCKET,
        Source.LOAD_BALANCER,
        Source.LATTICE,
    }
)
"""Sources that wait for an HTTP response."""

BATCHED: Final = frozenset({Source.SQS, Source.KINESIS, Source.DYNAMODB})
"""Sources that take a partial batch response (`ReportBatchItemFailures`)."""

RECORDS: Final = BATCHED | {Source.SNS, Source.S3}
"""Sources whose events have `Records`."""

_FUNCTION_URL_DOMAIN: Final = ".lambda-url."


def source_of(event: Any) -> Source:
    """Tell what sent an event."""
    if not isinstance(event, Mapping):
        return Source.DIRECT
    if "Records" in event:
        return _records_source(event["Records"])
    if isinstance(event.get("requestContext"), Mapping):
        return _http_source(event, event["requestContext"])
    is_eventbridge = isinstance(event.get("source"), str) and isinstance(event.get("detail-type"), str)
    return Source.EVENTBRIDGE if is_eventbridge and "detail" in event else Source.DIRECT


def records_of(event: Mapping[str, Any]) -> list[Any]:
    """The records of an event from one of `RECORDS`.

    Raises:
        ConfigurationError: The event is from another source.
    """
    if source_of(event) not in RECORDS:
        raise ConfigurationError(
            "the event has no records of a known source",
            hint='per="record" is for SQS, Kinesis, DynamoDB streams, SNS and S3',
        )
    return list(event["Records"])


def record_id(source: Source, record: Mapping[str, Any]) -> str:
    """What names a record over all its deliveries; for `BATCHED` sources, what a failure is reported by."""
    return _IDS[source](record)


def _http_source(event: Mapping[str, Any], context: Mapping[str, Any]) -> Source:
    if "methodArn" in event or "routeArn" in event:
        return Source.DIRECT  # an authorizer, which answers with a policy
    if isinstance(context.get("elb"), Mapping):
        return Source.LOAD_BALANCER
    if isinstance(context.get("connectionId"), str) and isinstance(context.get("eventType"), str):
        return Source.WEBSOCKET
    if event.get("version") == "2.0":
        return _version_2(context)
    is_rest = isinstance(event.get("httpMethod"), str) and isinstance(event.get("resource"), str)
    return Source.REST_API if is_rest else Source.DIRECT


def _version_2(context: Mapping[str, Any]) -> Source:
    if isinstance(context.get("http"), Mapping):
        is_url = _FUNCTION_URL_DOMAIN in str(context.get("domainName", ""))
        return Source.FUNCTION_URL if is_url else Source.HTTP_API
    return Source.LATTICE if isinstance(context.get("serviceNetworkArn"), str) else Source.DIRECT


def _records_source(records: Any) -> Source:
    if not isinstance(records, list) or not records:
        return Source.DIRECT
    tags = {
        record.get("eventSource") or record.get("EventSource") if isinstance(record, Mapping) else None
        for record in records
    }
    source = _TAGS.get(tags.pop()) if len(tags) == 1 else None
    if source is None:
        return Source.DIRECT
    try:
        complete = all(isinstance(record_id(source, record), str) for record in records)
    except (KeyError, TypeError):
        return Source.DIRECT
    return source if complete else Source.DIRECT


def _s3_id(record: Mapping[str, Any]) -> str:
    bucket, item = record["s3"]["bucket"], record["s3"]["object"]
    # The sequencer orders the events of one key; a notification may arrive more than once.
    return "\n".join((record["eventName"], bucket["name"], item["key"], item.get("sequencer", "")))


_IDS: Final[dict[Source, Callable[[Mapping[str, Any]], str]]] = {
    Source.SQS: lambda record: record["messageId"],
    Source.KINESIS: lambda record: record["kinesis"]["sequenceNumber"],
    Source.DYNAMODB: lambda record: record["dynamodb"]["SequenceNumber"],
    Source.SNS: lambda record: record["Sns"]["MessageId"],
    Source.S3: _s3_id,
}

_TAGS: Final[dict[Any, Source]] = {
    "aws:sqs": Source.SQS,
    "aws:kinesis": Source.KINESIS,
    "aws:dynamodb": Source.DYNAMODB,
    "aws:sns": Source.SNS,
    "aws:s3": Source.S3,
}
