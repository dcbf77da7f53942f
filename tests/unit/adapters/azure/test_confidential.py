"""What a function that calls the enclave gets, what Azure sees of it, and what gets out."""

from __future__ import annotations

import asyncio
import inspect
import json
import typing
from datetime import UTC, datetime

import azure.functions as func
import pytest
from azure.functions import blob, queue, servicebus, timer

from cloister.errors import ConfigurationError, DeniedError, HandlerError, OpenError, UnavailableError
from cloister_azure import AsyncEnclave, Enclave, confidential
from support.invokers import RecordedInvoker

SECRET = "the plaintext"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def invoker():
    return RecordedInvoker()


def request(body=b'{"history": "h"}'):
    return func.HttpRequest("POST", "https://app.example/api/f", body=body)


def event(number=1, body=b"{}", **more):
    return func.EventHubEvent(body=body, sequence_number=number, enqueued_time=NOW, **more)


def bus(number, message_id="m"):
    return servicebus.ServiceBusMessage(
        body=b"{}",
        message_id=message_id,
        sequence_number=number,
        enqueued_time_utc=NOW,
        application_properties={},
        user_properties={},
    )


def stored(uri="https://a.example/c/b", **properties):
    return blob.InputStream(data=b"x", uri=uri, blob_properties=properties)


def ticked(**status):
    return timer.TimerRequest(schedule_status=status)


def calling(invoker, **options):
    @confidential("f@prod", client=invoker, **options)
    def run(trigger, *, enclave: Enclave):
        return enclave(history="h")

    return run


# --- what Azure sees ---


def test_azure_sees_the_function_without_its_enclave():
    app = func.FunctionApp()

    @app.route(route="forecasts", methods=["POST"])
    @confidential("f@prod")
    async def forecast(req: func.HttpRequest, context: func.Context, *, enclave: AsyncEnclave) -> dict:
        """Forecast."""

    (indexed,) = app.get_functions()
    seen = indexed.get_user_function()
    assert indexed.get_function_name() == seen.__name__ == "forecast"
    assert seen.__doc__ == "Forecast."
    assert list(inspect.signature(seen).parameters) == ["req", "context"]
    assert typing.get_type_hints(seen) == {
        "req": func.HttpRequest,
        "context": func.Context,
        "return": func.HttpResponse,
    }
    assert inspect.iscoroutinefunction(seen)


def test_azure_sees_a_batch_where_the_function_takes_its_records():
    @confidential("f@prod", per="record")
    def each(event: func.EventHubEvent, *, enclave: Enclave) -> None: ...

    seen = typing.get_type_hints(each)["event"]
    assert (typing.get_origin(seen), typing.get_args(seen)) == (list, (func.EventHubEvent,))
    assert not inspect.iscoroutinefunction(each)


@pytest.mark.parametrize(
    ("annotation", "seen"), [(dict, str), (str, str), (bytes, bytes), (func.QueueMessage, func.QueueMessage)]
)
def test_azure_sees_what_goes_to_an_output_in_the_end(annotation, seen):
    def run(msg, *, enclave): ...

    run.__annotations__ = {"msg": func.QueueMessage, "return": annotation}
    assert typing.get_type_hints(confidential("f@prod")(run))["return"] is seen


@pytest.mark.parametrize(
    "handler",
    [lambda req: None, lambda req, enclave: None, lambda *, enclave: None, lambda *a, enclave: None],
)
def test_a_function_that_takes_no_enclave_or_no_trigger_cannot_be_decorated(handler):
    with pytest.raises(ConfigurationError):
        confidential("f@prod")(handler)


def test_the_wrong_order_of_decorators_is_told():
    app = func.FunctionApp()

    @app.route(route="forecasts")
    def forecast(req: func.HttpRequest): ...

    with pytest.raises(ConfigurationError, match="is no function") as refused:
        confidential("f@prod")(forecast)
    assert "below @app.route" in refused.value.hint


@pytest.mark.parametrize("options", [{"per": "batch"}, {"on_error": "hide"}])
def test_an_option_that_is_none_is_refused(options):
    with pytest.raises(ConfigurationError):
        confidential("f@prod", **options)


# --- results ---


def test_a_reply_becomes_a_response(invoker):
    response = calling(invoker)(trigger=request())
    assert isinstance(response, func.HttpResponse)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert json.loads(response.get_body()) == {"value": True, "receipt": "r-1"}
    assert response.headers["Cache-Control"] == "no-store"
    assert invoker.calls == [{"function": "f@prod", "context": None, "key": None, "history": "h"}]


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        (None, 204, None, b""),
        ("text", 200, "text/plain", b"text"),
        (b"\x00", 200, "application/octet-stream", b"\x00"),
        (False, 200, "application/json", b"false"),
        ({"a": [1]}, 200, "application/json", b'{"a": [1]}'),
        (func.HttpResponse(b"x", status_code=418, mimetype="a/b"), 418, "a/b", b"x"),
    ],
    ids=["nothing", "text", "bytes", "boolean", "object", "response"],
)
def test_what_an_http_function_returns_becomes_a_response(invoker, result, status, kind, body):
    @confidential("f@prod", client=invoker)
    def run(req, *, enclave):
        return result

    response = run(req=request())
    assert (response.status_code, response.get_body()) == (status, body)
    if kind is not None:
        assert response.mimetype == kind


def test_what_other_functions_return_is_text_or_what_their_binding_knows(invoker):
    message = queue.QueueMessage(id="1", body=b"{}")
    results = [None, "text", b"bytes", message, {"a": 1}, True, [{"a": 1}, "b"]]
    expected = [None, "text", b"bytes", message, '{"a": 1}', "true", ['{"a": 1}', "b"]]
    for result, output in zip(results, expected, strict=True):

        @confidential("f@prod", client=invoker)
        def run(msg, *, enclave, result=result):
            return result

        assert run(msg=message) == output
    assert json.loads(calling(invoker)(trigger=message)) == {"value": True, "receipt": "r-1"}


def test_an_async_function_awaits_its_enclave(invoker):
    @confidential("f@prod", client=invoker)
    async def run(req: func.HttpRequest, *, enclave: AsyncEnclave):
        first, second = await asyncio.gather(enclave(n=1), enclave(n=2))
        return {"values": [first.value, second.value]}

    response = asyncio.run(run(req=request()))
    assert json.loads(response.get_body()) == {"values": [True, True]}
    assert sorted(call["n"] for call in invoker.calls) == [1, 2]


# --- deliveries that come again ---

AGAIN = [
    (
        lambda: queue.QueueMessage(id="1", body=b"{}", dequeue_count=1),
        lambda: queue.QueueMessage(id="2", body=b"{}"),
    ),
    (lambda: bus(7), lambda: bus(8)),
    (event, lambda: event(2)),
    (event, lambda: event(body=b"[]")),
    (event, lambda: event(partition_key="k")),
    (lambda: [event(1), event(2)], lambda: [event(1)]),
    (lambda: [event(1), event(2)], lambda: [event(2), event(1)]),
    (lambda: stored(ETag="1"), lambda: stored(ETag="2")),
    (lambda: stored(ETag="1"), lambda: stored("https://a.example/c/other", ETag="1")),
    (lambda: ticked(Last="1", Next="2"), lambda: ticked(Last="2", Next="3")),
]


@pytest.mark.parametrize(("one", "another"), AGAIN)
def test_what_comes_again_has_the_same_key_and_nothing_else_has_it(invoker, one, another):
    for make in (one, one, another):
        calling(invoker)(trigger=make())
    first, again, other = invoker.keys
    assert first == again != other
    assert None not in invoker.keys


@pytest.mark.parametrize(
    "nameless",
    [
        request,
        lambda: queue.QueueMessage(body=b"{}"),
        lambda: bus(None),
        lambda: event(None),
        lambda: [event(1), event(None)],
        list,
        stored,
        ticked,
        lambda: "text",
    ],
)
def test_what_the_platform_does_not_name_gets_no_key_of_ours(invoker, nameless):
    calling(invoker)(trigger=nameless())
    assert invoker.keys == [None]


def test_the_producers_message_id_alone_names_nothing(invoker):
    calling(invoker)(trigger=bus(1, "same"))
    calling(invoker)(trigger=bus(2, "same"))
    assert len(set(invoker.keys)) == 2


def test_two_functions_and_two_apps_share_no_key(invoker, monkeypatch):
    def other(trigger, *, enclave):
        return enclave()

    calling(invoker)(trigger=event())
    confidential("f@prod", client=invoker)(other)(trigger=event())
    monkeypatch.setenv("WEBSITE_SITE_NAME", "another-app")
    calling(invoker)(trigger=event())
    assert len(set(invoker.keys)) == 3


def test_each_call_of_an_invocation_has_a_key_of_its_own(invoker):
    @confidential("f@prod", client=invoker)
    def run(msg, *, enclave):
        enclave()
        enclave()

    run(msg=event())
    run(msg=event())
    assert len(set(invoker.keys)) == 2


# --- batches, record by record ---


def each(invoker, fail=()):
    seen = []

    @confidential("f@prod", per="record", client=invoker)
    def run(event: func.EventHubEvent, *, enclave: Enclave):
        seen.append(event.sequence_number)
        if event.sequence_number in fail:
            raise ValueError(SECRET)
        return enclave(n=event.sequence_number)

    return run, seen


def test_each_record_is_handled_in_order_under_a_key_of_its_own(invoker):
    run, seen = each(invoker)
    outputs = run(event=[event(1), event(2), event(3)])
    assert seen == [1, 2, 3]
    assert len(outputs) == 3
    run(event=[event(3), event(4)])  # cut differently when it comes again
    assert len(set(invoker.keys)) == 4
    assert invoker.keys[2] == invoker.keys[3]


def test_a_record_that_fails_keeps_no_other_from_being_handled_and_the_batch_fails(invoker, caplog):
    run, seen = each(invoker, fail={1, 3})
    with pytest.raises(HandlerError, match="ValueError") as raised:
        run(event=[event(1), event(2), event(3)])
    assert seen == [1, 2, 3]
    assert [call["n"] for call in invoker.calls] == [2]
    assert SECRET not in caplog.text + str(raised.value)
    assert "record 2 of the batch failed" in caplog.text


def test_an_async_function_takes_records_too(invoker):
    @confidential("f@prod", per="record", client=invoker)
    async def run(event: func.EventHubEvent, *, enclave: AsyncEnclave):
        await enclave(n=event.sequence_number)

    assert asyncio.run(run(event=[event(1), event(2)])) is None
    assert [call["n"] for call in invoker.calls] == [1, 2]


def test_records_are_asked_of_a_trigger_that_has_none(invoker):
    run, _ = each(invoker)
    with pytest.raises(ConfigurationError, match="batch"):
        run(event=event(1))


# --- errors ---


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, UnavailableError])
def test_what_a_function_raises_gets_out_without_data(invoker, kind, is_async):
    if is_async:

        @confidential("f@prod", client=invoker)
        async def run(req, *, enclave):
            raise kind(SECRET)
    else:

        @confidential("f@prod", client=invoker)
        def run(req, *, enclave):
            raise kind(SECRET)

    with pytest.raises(HandlerError) as raised:
        asyncio.run(run(req=request())) if is_async else run(req=request())
    assert kind.__name__ in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_a_cancelled_function_is_cancelled(invoker):
    @confidential("f@prod", client=invoker)
    async def run(req, *, enclave):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run(req=request()))


class Refusing(RecordedInvoker):
    """Raises as the client does: from within our own package."""

    def invoke(self, function, /, **inputs):
        from cloister.faas import FunctionName

        FunctionName.parse("")


def test_an_error_of_ours_becomes_a_problem_where_that_is_asked_for():
    response = calling(Refusing(), on_error="answer")(trigger=request())
    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    document = json.loads(response.get_body())
    assert document["code"] == "configuration"
    assert document["title"] == "Internal Server Error"


def test_an_error_of_ours_is_raised_to_others_and_by_default():
    with pytest.raises(ConfigurationError):
        calling(Refusing())(trigger=request())
    with pytest.raises(ConfigurationError):
        calling(Refusing(), on_error="answer")(trigger=event())


@pytest.mark.parametrize("kind", [OpenError, DeniedError, ValueError])
def test_an_error_of_the_functions_own_is_no_problem_whatever_its_type(invoker, kind):
    @confidential("f@prod", client=invoker, on_error="answer")
    def run(req, *, enclave):
        raise kind(SECRET)

    with pytest.raises(HandlerError) as raised:
        run(req=request())
    assert SECRET not in str(raised.value)
