"""Event sources: told from documented members, and answered in their own shape."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import DeniedError, HandlerError
from cloister.receipts import Receipt
from cloister.reply import BatchReply, Reply
from cloister_aws import confidential
from cloister_aws.events import Source, source_of
from cloister_aws.responses import problem, shaped
from support.aws_events import EVENTS, LambdaContext, event

SOURCES = {
    "sqs": Source.SQS,
    "powertools_sqsEvent": Source.SQS,
    "sns": Source.SNS,
    "kinesis": Source.KINESIS,
    "dynamodb": Source.DYNAMODB,
    "powertools_dynamoStreamTumblingWindowEvent": Source.DYNAMODB,
    "s3_put": Source.S3,
    "s3_delete": Source.S3,
    "powertools_s3Event": Source.S3,
    "rest_api": Source.REST_API,
    "http_api": Source.HTTP_API,
    "powertools_apiGatewayProxyV2Event": Source.HTTP_API,
    "powertools_lambdaFunctionUrlEvent": Source.FUNCTION_URL,
    "powertools_apiGatewayWebSocketApiMessage": Source.WEBSOCKET,
    "load_balancer": Source.LOAD_BALANCER,
    "eventbridge_scheduled": Source.EVENTBRIDGE,
    "powertools_eventBridgeEvent": Source.EVENTBRIDGE,
}
RECEIPT = Receipt(id="r-1", token="a.b.c")


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.json")))
def test_each_recorded_event_is_told_and_any_other_is_direct(name):
    assert source_of(event(name)) is SOURCES.get(name, Source.DIRECT)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("sqs", ["Records", 0, "messageId"]),
        ("sqs", ["Records", 0, "eventSource"]),
        ("kinesis", ["Records", 0, "kinesis", "sequenceNumber"]),
        ("dynamodb", ["Records", 0, "dynamodb", "SequenceNumber"]),
        ("sns", ["Records", 0, "Sns"]),
        ("s3_put", ["Records", 0, "s3", "bucket"]),
        ("rest_api", ["httpMethod"]),
        ("http_api", ["version"]),
        ("http_api", ["requestContext", "http"]),
        ("eventbridge_scheduled", ["detail-type"]),
    ],
    ids=lambda value: value if isinstance(value, str) else ".".join(map(str, value)),
)
def test_an_event_that_lacks_a_documented_member_is_direct(name, path):
    changed = event(name)
    *steps, last = path
    holder = changed
    for step in steps:
        holder = holder[step]
    del holder[last]
    assert source_of(changed) is Source.DIRECT


def test_records_of_two_sources_are_no_event_of_either():
    mixed = {"Records": [*event("sqs")["Records"], *event("kinesis")["Records"]]}
    assert source_of(mixed) is Source.DIRECT


@pytest.mark.parametrize("member", ["methodArn", "routeArn"])
def test_an_authorizer_answers_with_a_policy_and_not_with_a_response(member):
    assert source_of({**event("http_api"), member: "arn:aws:execute-api:x"}) is Source.DIRECT
    assert source_of({**event("rest_api"), member: "arn:aws:execute-api:x"}) is Source.DIRECT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Records",
                    "eventSource",
                    "EventSource",
                    "requestContext",
                    "elb",
                    "http",
                    "version",
                    "kinesis",
                    "x",
                ]
            ),
            inner | st.sampled_from(["aws:sqs", "aws:kinesis", "aws:s3", "aws:sns", "2.0"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_event_makes_telling_its_source_fail(value):
    assert isinstance(source_of(value), Source)


# --- shapes ---


@pytest.mark.parametrize("name", ["rest_api", "http_api", "powertools_lambdaFunctionUrlEvent"])
def test_a_result_becomes_an_http_response(name):
    response = shaped(SOURCES[name], event(name), {"forecast": "eyJ"})
    assert response["statusCode"] == 200
    assert json.loads(response["body"]) == {"forecast": "eyJ"}
    assert response["headers"] == {"content-type": "application/json", "cache-control": "no-store"}
    assert response["isBase64Encoded"] is False


def test_a_sealed_value_says_what_it_is(sealed):
    response = shaped(Source.HTTP_API, event("http_api"), sealed)
    assert response["headers"]["content-type"] == "application/jose"
    assert response["body"] == sealed


@pytest.mark.parametrize(
    ("result", "status", "body", "is_base64"),
    [
        (None, 204, "", False),
        ("text", 200, "text", False),
        (b"\x00\xff", 200, "AP8=", True),
        (True, 200, "true", False),
    ],
)
def test_any_result_has_one_response(result, status, body, is_base64):
    response = shaped(Source.REST_API, event("rest_api"), result)
    assert (response["statusCode"], response["body"], response["isBase64Encoded"]) == (
        status,
        body,
        is_base64,
    )


def test_a_response_of_the_handlers_own_stays():
    own = {
        "statusCode": 201,
        "headers": {"Content-Type": "text/csv"},
        "body": "a,b",
        "isBase64Encoded": False,
    }
    assert shaped(Source.REST_API, event("rest_api"), own) == own
    decoded = shaped(Source.REST_API, event("rest_api"), {"statusCode": 404, "body": {"code": 7}})
    assert (decoded["statusCode"], decoded["body"]) == (404, '{"code":7}')


def test_a_load_balancer_gets_its_status_line_and_its_several_headers():
    response = shaped(Source.LOAD_BALANCER, event("load_balancer"), {"n": 1})
    assert response["statusDescription"] == "200 OK"
    several = {**event("load_balancer"), "multiValueHeaders": {"accept": ["*/*"]}}
    assert shaped(Source.LOAD_BALANCER, several, {"n": 1})["multiValueHeaders"]["content-type"] == [
        "application/json"
    ]


@pytest.mark.parametrize("name", ["sqs", "kinesis", "dynamodb"])
def test_a_batch_that_succeeded_reports_no_failures_whatever_was_returned(name):
    for result in (None, [1], {"n": 1}):
        assert shaped(SOURCES[name], event(name), result) == {"batchItemFailures": []}
    own = {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert shaped(SOURCES[name], event(name), own) == own


def test_the_state_of_a_tumbling_window_is_kept():
    window = event("powertools_dynamoStreamTumblingWindowEvent")
    answer = shaped(Source.DYNAMODB, window, {"state": {"1": "s"}})
    assert answer == {"state": {"1": "s"}, "batchItemFailures": []}


def test_a_direct_result_stays_and_a_reply_becomes_value_and_receipt():
    assert shaped(Source.DIRECT, {}, {"n": 1}) == {"n": 1}
    assert shaped(Source.DIRECT, {}, Reply(value=True, receipt=RECEIPT)) == {"value": True, "receipt": "r-1"}
    batch = BatchReply(values=[True, None], errors={1: "open"}, receipt=RECEIPT)
    expected = {"values": [True, None], "errors": {"1": "open"}, "receipt": "r-1"}
    assert shaped(Source.DIRECT, {}, batch) == expected
    json.dumps(expected)


def test_the_decorator_shapes_what_the_handler_returns(invoker):
    @confidential("credit-forecast@prod", client=invoker)
    def handler(event, context, *, enclave):
        return enclave(n=1)

    assert handler({}, LambdaContext()) == {"value": True, "receipt": "r-1"}
    response = handler(event("http_api"), LambdaContext())
    assert json.loads(response["body"]) == {"value": True, "receipt": "r-1"}


# --- errors over HTTP ---


def refused(invoker, **options):
    import cloister.faas.enclave as ours

    @confidential("credit-forecast@prod", client=invoker, **options)
    def handler(event, context, *, enclave):
        # Raised by a frame of this product, as its own errors are.
        exec(compile("raise error", "x", "exec"), ours.__dict__ | {"error": DeniedError("no grant")})

    return handler


def test_an_error_is_raised_unless_an_answer_is_asked_for(invoker):
    with pytest.raises(DeniedError):
        refused(invoker)(event("http_api"), LambdaContext())
    response = refused(invoker, on_error="answer")(event("http_api"), LambdaContext())
    body = json.loads(response["body"])
    assert (response["statusCode"], body["code"], body["retryable"]) == (403, "denied", False)
    assert response["headers"]["content-type"] == "application/problem+json"


def test_a_source_that_waits_for_no_response_still_gets_the_error(invoker):
    with pytest.raises(DeniedError):
        refused(invoker, on_error="answer")(event("powertools_eventBridgeEvent"), LambdaContext())


def test_a_defect_of_the_handler_is_never_answered_but_raised(invoker):
    @confidential("credit-forecast@prod", client=invoker, on_error="answer")
    def handler(event, context, *, enclave):
        raise ValueError("balance 75382")

    with pytest.raises(HandlerError):
        handler(event("http_api"), LambdaContext())


def test_an_error_in_our_own_set_up_is_not_explained_to_strangers():
    from cloister.errors import ConfigurationError

    body = json.loads(problem(Source.HTTP_API, {}, ConfigurationError("missing CLOISTER_URL"))["body"])
    assert body["title"] == "Internal Server Error"


# --- what names an event over its deliveries ---


def test_an_event_from_a_bus_has_the_same_keys_in_every_invocation(invoker):
    @confidential("credit-forecast@prod", client=invoker)
    def handler(event, context, *, enclave):
        enclave(n=1)

    published = event("powertools_eventBridgeEvent")
    for request_id in ("a", "b"):
        handler(published, LambdaContext(aws_request_id=request_id))
    handler({**published, "id": "another"}, LambdaContext())
    handler({**published, "replay-name": "again"}, LambdaContext())
    assert invoker.keys[0] == invoker.keys[1]
    assert len(set(invoker.keys)) == 3
