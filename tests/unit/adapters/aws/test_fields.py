"""Sealing and masking fields of events and responses."""

from __future__ import annotations

import base64
import json

import pytest

from cloister.envelope import Sealed, seal_to
from cloister.errors import ConfigurationError, HandlerError
from cloister.mask import DENIED, MASKED, PLAIN, REDACTED
from cloister_aws import confidential, mask_fields, seal_fields
from support.aws_events import LambdaContext, event
from support.invokers import OfflineSealer

SSN = "078-05-1120"
KEY = OfflineSealer.key


@pytest.fixture
def sealer():
    return OfflineSealer()


def echo(event, context):
    return event


def test_the_handler_sees_a_field_of_the_event_sealed_and_the_event_stays(sealer):
    sent = {"customer": "17", "ssn": SSN, "cards": [{"pan": "4111"}, {"pan": "4222"}], "n": 1}
    handler = seal_fields(
        event={"$.ssn": "ssns", "/cards/1/pan": "pans"}, context={"customer": "$.customer"}, client=sealer
    )(echo)
    seen = handler(sent, None)
    assert isinstance(seen["ssn"], Sealed)
    assert isinstance(seen["cards"][1]["pan"], Sealed)
    assert (seen["cards"][0]["pan"], seen["n"]) == ("4111", 1)
    assert sent["ssn"] == SSN
    assert sent["cards"][1]["pan"] == "4222"
    assert sealer.calls == [
        ("pans", ["4222"], [{"customer": "17"}]),
        ("ssns", [SSN], [{"customer": "17"}]),
    ]


def test_a_response_is_sealed_before_it_leaves(sealer):
    handler = seal_fields(response={"$..pin": "pins"}, client=sealer)(lambda event, context: event)
    answer = handler({"a": {"pin": "1234"}, "b": [{"pin": "5678"}]}, None)
    assert "1234" not in json.dumps(answer)
    assert "5678" not in json.dumps(answer)
    assert len(sealer.calls) == 1


def test_what_is_sealed_under_the_key_already_stays(sealer):
    value = seal_to(SSN, KEY.public(), kid="ssns.1")
    handler = seal_fields(event={"$.ssn": "ssns"}, client=sealer)(echo)
    assert handler({"ssn": str(value)}, None)["ssn"] == value
    assert not sealer.calls
    other = seal_fields(event={"$.ssn": "others"}, client=sealer)(echo)
    assert other({"ssn": str(value)}, None)["ssn"] != value


@pytest.mark.parametrize(
    ("name", "path", "read"),
    [
        ("http_api", "$.body.ssn", lambda e: json.loads(base64.b64decode(e["body"]))),
        ("rest_api", "$.body.ssn", lambda e: json.loads(base64.b64decode(e["body"]))),
        ("sqs", "$.Records[*].body.ssn", lambda e: json.loads(e["Records"][0]["body"])),
        ("sns", "$.Records[*].Sns.Message.ssn", lambda e: json.loads(e["Records"][0]["Sns"]["Message"])),
        (
            "kinesis",
            "$.Records[*].kinesis.data.ssn",
            lambda e: json.loads(base64.b64decode(e["Records"][0]["kinesis"]["data"])),
        ),
    ],
)
def test_a_path_goes_on_into_json_that_an_event_carries_as_text(name, path, read, sealer):
    seen = seal_fields(event={path: "ssns"}, client=sealer)(echo)(event(name), None)
    assert Sealed(read(seen)["ssn"]).kid == "ssns.1"
    assert read(seen)["customer"] == "17"
    masked = mask_fields(event={path: MASKED("***-**-{last:4}")}, default=PLAIN)(echo)(event(name), None)
    assert read(masked)["ssn"] == "***-**-1120"


def test_text_that_no_path_leads_into_is_passed_on_byte_by_byte(sealer):
    sent = {**event("powertools_apiGatewayProxyV2Event"), "body": '{ "a" : 1e2 }', "extra": SSN}
    assert seal_fields(event={"$.extra": "ssns"}, client=sealer)(echo)(sent, None)["body"] == '{ "a" : 1e2 }'


@pytest.mark.parametrize("body", ['"healthy"', "12.50", "null"])
def test_a_json_text_without_members_stays_as_it_is(body):
    sent = {"statusCode": 200, "body": body}
    assert mask_fields(response={"$.body.ssn": REDACTED}, default=PLAIN)(echo)(sent, None) == sent


def test_by_default_a_json_text_without_members_is_masked_too():
    sent = {"statusCode": 200, "body": f'"{SSN}"'}
    masked = mask_fields(response={"$.body.name": PLAIN, "$.statusCode": PLAIN}, default=REDACTED)(echo)
    assert SSN not in str(masked(sent, None))


def test_two_members_of_one_name_do_not_hide_a_plaintext(sealer):
    sealed = seal_to(SSN, KEY.public(), kid="ssns.1")
    sent = {**event("powertools_apiGatewayProxyV2Event"), "body": f'{{"ssn":"{SSN}","ssn":"{sealed}"}}'}
    assert SSN not in seal_fields(event={"$.body.ssn": "ssns"}, client=sealer)(echo)(sent, None)["body"]


def test_records_are_sealed_one_by_one_with_a_context_of_their_own(sealer, invoker):
    @confidential("credit-forecast@prod", per="record", client=invoker)
    @seal_fields(event={"$.body.ssn": "ssns"}, context={"customer": "$.body.customer"}, client=sealer)
    def handler(record, context, *, enclave):
        body = json.loads(record["body"])
        enclave(ssn=body["ssn"], context={"customer": body["customer"]})

    assert handler(event("sqs"), LambdaContext()) == {"batchItemFailures": []}
    assert Sealed(invoker.calls[0]["ssn"])
    assert sealer.calls[0][2] == [{"customer": "17"}]


# --- nothing passes because something else is wrong ---


@pytest.mark.parametrize("path", ["$.snn", "/a/ssn", "$.cards[*].pan"])
def test_a_path_that_finds_nothing_is_refused_before_the_handler_runs(path, sealer):
    ran = []
    handler = seal_fields(event={path: "ssns"}, client=sealer)(lambda event, context: ran.append(event))
    with pytest.raises(ConfigurationError) as refusal:
        handler({"ssn": SSN, "cards": []}, None)
    assert path in str(refusal.value)
    assert SSN not in str(refusal.value)
    assert not ran


def test_an_absent_field_may_be_allowed(sealer):
    handler = seal_fields(event={"$.snn": "ssns"}, on_missing="ignore", client=sealer)(echo)
    assert handler({"a": 1}, None) == {"a": 1}
    assert not sealer.calls


@pytest.mark.parametrize("body", [SSN, "{", "[1,", '{"a":' * 200_000])
def test_text_that_is_no_json_is_refused_and_never_passed_on(body, sealer):
    sent = {**event("powertools_apiGatewayProxyV2Event"), "body": body}
    for decorated in (
        seal_fields(event={"$.body.ssn": "ssns"}, on_missing="ignore", client=sealer)(echo),
        mask_fields(event={"$.body.ssn": REDACTED}, default=PLAIN)(echo),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            decorated(sent, None)
        assert SSN not in str(refusal.value)


@pytest.mark.parametrize("customer", [None, "", True, {"a": 1}])
def test_a_context_that_is_not_there_is_refused(customer, sealer):
    handler = seal_fields(event={"$.ssn": "ssns"}, context={"customer": "$.customer"}, client=sealer)(echo)
    with pytest.raises(ConfigurationError, match="customer"):
        handler({"ssn": SSN, "customer": customer}, None)
    assert not sealer.calls


def test_a_number_is_a_context_by_its_digits(sealer):
    seal_fields(event={"$.ssn": "ssns"}, context={"id": "/id"}, client=sealer)(echo)(
        {"ssn": SSN, "id": 17}, None
    )
    assert sealer.calls[0][2] == [{"id": "17"}]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"event": {"ssn": "ssns"}},
        {"event": {"$.ssn": "Not A Key"}},
        {"event": {"$.ssn": "ssns"}, "context": {"a": "$..x"}},
        {"event": {"$.ssn": "a", "$..ssn": "b"}},
    ],
    ids=["nothing", "no path", "no key", "a context of many places", "two keys at one place"],
)
def test_what_cannot_be_meant_is_refused_when_it_is_written(arguments):
    with pytest.raises(ConfigurationError):
        seal_fields(**arguments)


def test_what_a_handler_raises_carries_nothing_out(sealer):
    @seal_fields(event={"$.ssn": "ssns"}, client=sealer)
    def handler(event, context):
        raise ValueError(event["name"])

    with pytest.raises(HandlerError) as caught:
        handler({"ssn": SSN, "name": "Jane Doe"}, None)
    assert "Jane" not in str(caught.value)


# --- masks ---


def test_a_response_shows_what_its_mask_lets_out():
    shown = mask_fields(response={"$.name": PLAIN, "$.ssn": MASKED("***-**-{last:4}")}, default=DENIED)(echo)
    assert shown({"name": "Ann", "ssn": SSN, "salary": 1}, None) == {"name": "Ann", "ssn": "***-**-1120"}


def test_a_shaped_response_is_masked_in_its_body(invoker):
    @mask_fields(response={"$.body.ssn": REDACTED}, default=PLAIN)
    @confidential("credit-forecast@prod", client=invoker)
    def handler(event, context, *, enclave):
        return {"ssn": SSN}

    response = handler(event("http_api"), LambdaContext())
    assert json.loads(response["body"]) == {"ssn": "[REDACTED]"}


def test_coroutines_are_decorated_too(sealer, invoker):
    @confidential("credit-forecast@prod", client=invoker)
    @seal_fields(event={"$.ssn": "ssns"}, client=sealer)
    @mask_fields(response={"$.name": REDACTED}, default=PLAIN)
    async def handler(event, context, *, enclave):
        await enclave(ssn=event["ssn"])
        return {"name": "Ann"}

    assert handler({"ssn": SSN}, LambdaContext()) == {"name": "[REDACTED]"}
    assert Sealed(invoker.calls[0]["ssn"])


def test_powertools_data_classes_come_back_as_what_they_were(sealer):
    classes = pytest.importorskip("aws_lambda_powertools.utilities.data_classes")
    handler = seal_fields(event={"$.body.ssn": "ssns"}, client=sealer)(echo)
    seen = handler(classes.APIGatewayProxyEventV2(event("http_api")), None)
    assert isinstance(seen, classes.APIGatewayProxyEventV2)
    assert Sealed(seen.json_body["ssn"])
