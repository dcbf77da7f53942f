"""One call a record: partial batch responses, order, redelivery, Powertools' processors."""

from __future__ import annotations

import copy
import logging
import traceback

import pytest

from cloister.errors import ConfigurationError, HandlerError
from cloister_aws import confidential
from support.aws_events import LambdaContext, event

SECRET = "balance 75382"


def several(name, count=3):
    """An event with some records that differ in what names them."""
    records = []
    for number in range(count):
        record = copy.deepcopy(event(name)["Records"][0])
        if name == "sqs":
            record["messageId"] = f"m-{number}"
            record["body"] = str(number)
        elif name == "kinesis":
            record["kinesis"]["sequenceNumber"] = str(number)
        elif name == "dynamodb":
            record["dynamodb"]["SequenceNumber"] = str(number)
        elif name == "sns":
            record["Sns"]["MessageId"] = str(number)
        else:
            record["s3"]["object"]["key"] = str(number)
        records.append(record)
    return {"Records": records}


def failing_at(*bad, client, **options):
    seen = []

    @confidential("credit-forecast@prod", per="record", client=client, **options)
    def handler(record, context, *, enclave):
        seen.append(record)
        if len(seen) - 1 in bad:
            raise ValueError(SECRET)
        return enclave(n=len(seen)).value

    return handler, seen


def reported(answer):
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def test_every_message_is_handled_and_the_failed_ones_are_reported(invoker):
    handler, seen = failing_at(1, client=invoker)
    assert reported(handler(several("sqs"), LambdaContext())) == ["m-1"]
    assert len(seen) == 3


def test_a_batch_without_failures_reports_none(invoker):
    handler, _ = failing_at(client=invoker)
    assert handler(several("sqs"), LambdaContext()) == {"batchItemFailures": []}


def test_after_a_failure_a_fifo_queue_gets_the_rest_back_in_order(invoker):
    fifo = several("sqs", 4)
    for record in fifo["Records"]:
        record["eventSourceARN"] += ".fifo"
    handler, seen = failing_at(1, client=invoker)
    assert reported(handler(fifo, LambdaContext())) == ["m-1", "m-2", "m-3"]
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["kinesis", "dynamodb"])
def test_a_stream_goes_on_from_the_first_failure(name, invoker):
    handler, seen = failing_at(1, client=invoker)
    assert reported(handler(several(name), LambdaContext())) == ["1"]
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["sns", "s3_put"])
def test_without_a_partial_response_every_record_is_tried_and_the_error_is_raised(name, invoker):
    handler, seen = failing_at(0, client=invoker)
    with pytest.raises(HandlerError) as caught:
        handler(several(name), LambdaContext())
    assert len(seen) == 3
    assert "75382" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["http_api", "powertools_eventBridgeEvent", "firehose"])
def test_an_event_without_known_records_is_refused(name, invoker):
    handler, _ = failing_at(client=invoker)
    with pytest.raises(ConfigurationError, match="records"):
        handler(event(name), LambdaContext())


@pytest.mark.parametrize("name", ["sqs", "kinesis", "dynamodb", "sns", "s3_put"])
def test_a_record_that_comes_again_has_the_same_keys(name, invoker):
    handler, _ = failing_at(client=invoker)
    handler(several(name, 2), LambdaContext(aws_request_id="first"))
    again = several(name, 2)
    again["Records"].reverse()
    handler(again, LambdaContext(aws_request_id="second"))
    assert invoker.keys[:2] == invoker.keys[3:1:-1]
    assert len(set(invoker.keys)) == 2


def test_a_failure_is_logged_by_its_record_and_without_data(invoker, caplog):
    handler, _ = failing_at(1, client=invoker)
    with caplog.at_level(logging.DEBUG):
        handler(several("sqs"), LambdaContext())
    assert "m-1" in caplog.text
    assert "75382" not in caplog.text


def test_coroutines_handle_records_too(invoker):
    @confidential("credit-forecast@prod", per="record", client=invoker)
    async def handler(record, context, *, enclave):
        if record["body"] == "2":
            raise ValueError(SECRET)
        await enclave(body=record["body"])

    assert reported(handler(several("sqs"), LambdaContext())) == ["m-2"]
    assert [call["body"] for call in invoker.calls] == ["0", "1"]


# --- Powertools ---


@pytest.fixture
def batch():
    return pytest.importorskip("aws_lambda_powertools.utilities.batch")


def test_powertools_iterates_gives_its_data_classes_and_answers(batch, invoker):
    @confidential(
        "credit-forecast@prod",
        per="record",
        client=invoker,
        processor=batch.BatchProcessor(event_type=batch.EventType.SQS),
    )
    def handler(record, context, *, enclave):
        if record.body == "1":
            raise ValueError(SECRET)
        return enclave(body=record.body).value

    for request_id in ("first", "second"):
        answer = handler(several("sqs"), LambdaContext(aws_request_id=request_id))
        assert reported(answer) == ["m-1"]
    assert invoker.keys[:2] == invoker.keys[2:]


def test_powertools_prints_nothing_of_what_failed(batch, invoker, caplog):
    processor = batch.BatchProcessor(event_type=batch.EventType.SQS)
    handler, _ = failing_at(0, 1, 2, client=invoker, processor=processor)
    with caplog.at_level(logging.DEBUG), pytest.raises(HandlerError) as caught:
        handler(several("sqs"), LambdaContext())
    shown = caplog.text + "".join(traceback.format_exception(caught.value)) + repr(processor.exceptions)
    assert "75382" not in shown
    assert "BatchProcessingError" in str(caught.value)


def test_powertools_own_pattern_works_inside_a_handler_for_whole_events(batch, invoker):
    processor = batch.BatchProcessor(event_type=batch.EventType.SQS)

    @confidential("credit-forecast@prod", client=invoker)
    def handler(event, context, *, enclave):
        def handle(record):
            return enclave(body=record.body, idempotency_key=record.message_id)

        return batch.process_partial_response(
            event=event, record_handler=handle, processor=processor, context=context
        )

    assert handler(several("sqs"), LambdaContext()) == {"batchItemFailures": []}
    assert invoker.keys == ["m-0", "m-1", "m-2"]


def test_a_processor_needs_a_handler_for_records(batch):
    with pytest.raises(ConfigurationError, match="record"):
        confidential("f@prod", processor=batch.BatchProcessor(event_type=batch.EventType.SQS))
