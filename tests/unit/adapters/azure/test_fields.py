"""Sealing and masking fields of triggers and responses."""

from __future__ import annotations

import asyncio
import inspect
import json

import azure.functions as func
import pytest
from azure.functions import blob, queue
from azure.functions.timer import TimerRequest

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, HandlerError
from cloister.mask import DENIED, MASKED, PLAIN
from cloister_azure import Enclave, confidential, mask_fields, seal_fields
from support.invokers import OfflineSealer, RecordedInvoker

SSN = "078-05-1120"


@pytest.fixture
def sealer():
    return OfflineSealer()


def request(document):
    return func.HttpRequest(
        "POST",
        "https://app.example/api/customers/17",
        headers={"X-Case": "1"},
        params={"q": "1"},
        route_params={"id": "17"},
        body=json.dumps(document).encode(),
    )


def into(ran):
    """A function that puts what it gets into a list."""

    def run(req):
        ran.append(req)

    return run


def keep(value):
    """What an output binding takes: the body of whatever came."""
    return value.get_body().decode()


def test_the_function_sees_a_field_of_the_request_sealed_and_all_else_as_it_came(sealer):
    @seal_fields(event={"$.ssn": "ssns"}, context={"customer": "$.customer"}, client=sealer)
    def run(req: func.HttpRequest) -> func.HttpResponse:
        return req

    sent = request({"ssn": SSN, "customer": "17"})
    seen = run(req=sent)
    assert isinstance(seen, func.HttpRequest)
    assert Sealed(seen.get_json()["ssn"]).kid == "ssns.1"
    assert SSN not in repr(vars(seen))
    assert (seen.method, seen.url, seen.headers["x-case"]) == ("POST", sent.url, "1")
    assert (seen.params["q"], seen.route_params["id"]) == ("1", "17")
    assert sent.get_json()["ssn"] == SSN
    assert sealer.calls == [("ssns", [SSN], [{"customer": "17"}])]


@pytest.mark.parametrize(
    "message",
    [
        queue.QueueMessage(id="7", body=json.dumps({"ssn": SSN}).encode()),
        func.EventHubEvent(body=json.dumps({"ssn": SSN}).encode(), sequence_number=7),
        func.ServiceBusMessage(body=json.dumps({"ssn": SSN}).encode()),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_and_events_are_sealed_and_stay_what_they_are(sealer, message):
    kind = type(message)

    @seal_fields(event={"$.ssn": "ssns"}, client=sealer)
    def run(msg):
        assert isinstance(msg, kind)
        assert getattr(msg, "id", "7") == "7"
        return keep(msg)

    assert Sealed(json.loads(run(msg=message))["ssn"]).kid == "ssns.1"
    assert SSN in keep(message)


@pytest.mark.parametrize(
    "delivered",
    [
        lambda body: queue.QueueMessage(id="7", body=body),
        lambda body: func.EventHubEvent(body=body, sequence_number=7),
        lambda body: [func.EventHubEvent(body=body, sequence_number=n) for n in range(2)],
    ],
    ids=["message", "event", "batch"],
)
def test_what_was_sealed_on_the_way_in_still_names_its_delivery(sealer, delivered):
    invoker = RecordedInvoker()

    @seal_fields(event={"$.ssn": "ssns"}, client=sealer)
    @confidential("f@prod", client=invoker)
    def run(msg, *, enclave: Enclave) -> None:
        first = msg[0] if isinstance(msg, list) else msg
        enclave(ssn=json.loads(first.get_body())["ssn"])

    for _ in range(2):
        run(msg=delivered(json.dumps({"ssn": SSN}).encode()))
    assert invoker.keys[0] == invoker.keys[1] is not None
    assert all(isinstance(Sealed(call["ssn"]), Sealed) for call in invoker.calls)


def test_each_event_of_a_batch_is_sealed_in_its_own_context(sealer):
    @seal_fields(event={"$.ssn": "ssns"}, context={"customer": "$.customer"}, client=sealer)
    def run(events):
        return [keep(event) for event in events]

    events = [
        func.EventHubEvent(body=json.dumps({"ssn": SSN, "customer": str(n)}).encode()) for n in range(2)
    ]
    assert SSN not in "".join(run(events=events))
    assert [contexts for _, _, contexts in sealer.calls] == [[{"customer": "0"}], [{"customer": "1"}]]


@pytest.mark.parametrize("text", [json.dumps({"ssn": SSN}), json.dumps({"ssn": SSN}).encode()])
def test_text_and_bytes_are_sealed_too(sealer, text):
    run = seal_fields(event={"$.ssn": "ssns"}, client=sealer)(lambda msg: msg)
    seen = run(msg=text)
    assert type(seen) is type(text)
    assert Sealed(json.loads(seen)["ssn"]).kid == "ssns.1"


@pytest.mark.parametrize(
    "response",
    [
        {"ssn": SSN},
        json.dumps({"ssn": SSN}),
        func.HttpResponse(json.dumps({"ssn": SSN}), status_code=201, mimetype="application/json"),
    ],
)
def test_a_response_is_sealed_before_it_leaves(sealer, response):
    run = seal_fields(response={"$.ssn": "ssns"}, client=sealer)(lambda req: response)
    out = run(req=request({}))
    text = out.get_body().decode() if isinstance(out, func.HttpResponse) else json.dumps(out)
    assert SSN not in text
    assert "eyJ" in text
    if isinstance(out, func.HttpResponse):
        assert (out.status_code, out.mimetype) == (201, "application/json")


def test_masking_hides_what_no_path_names(sealer):
    run = mask_fields(response={"$.ssn": MASKED("***-**-{last:4}")}, default=DENIED)(
        lambda req: {"ssn": SSN, "name": "Ann"}
    )
    assert run(req=request({})) == {"ssn": "***-**-1120"}


def test_a_masked_async_function_stays_one():
    @mask_fields(event={"$.ssn": MASKED("***")}, default=PLAIN)
    async def run(req: func.HttpRequest) -> str:
        return req.get_json()["ssn"]

    assert inspect.iscoroutinefunction(run)
    assert asyncio.run(run(req=request({"ssn": SSN}))) == "***"


@pytest.mark.parametrize("body", [b"", b"no json", b"\xff"])
def test_what_is_no_json_is_an_error_and_not_shown(sealer, body):
    ran = []
    run = seal_fields(event={"$.ssn": "ssns"}, client=sealer)(into(ran))
    with pytest.raises(ConfigurationError, match="not JSON") as refused:
        run(func.HttpRequest("POST", "https://app.example", body=body))
    assert not ran
    assert "no json" not in str(refused.value)


def test_a_path_that_finds_nothing_is_an_error_before_the_function_runs(sealer):
    ran = []
    run = seal_fields(event={"$.snn": "ssns"}, client=sealer)(into(ran))
    with pytest.raises(ConfigurationError, match="snn"):
        run(request({"ssn": SSN}))
    assert not ran


@pytest.mark.parametrize("trigger", [TimerRequest(), blob.InputStream(data=b"{}")])
def test_a_trigger_without_fields_is_refused(sealer, trigger):
    run = seal_fields(event={"$.ssn": "ssns"}, client=sealer)(lambda it: it)
    with pytest.raises(ConfigurationError, match=type(trigger).__name__):
        run(it=trigger)


def test_nothing_to_do_is_refused():
    with pytest.raises(ConfigurationError):
        seal_fields()
    with pytest.raises(ConfigurationError):
        mask_fields(default=PLAIN)


def test_what_the_function_raises_carries_no_field(sealer):
    @seal_fields(event={"$.ssn": "ssns"}, client=sealer)
    def run(req):
        raise ValueError(SSN)

    with pytest.raises(HandlerError) as raised:
        run(req=request({"ssn": SSN}))
    assert SSN not in str(raised.value)
