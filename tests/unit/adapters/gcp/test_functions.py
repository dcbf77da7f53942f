"""Cloud Run functions under the real functions-framework: requests, events, repetitions, errors."""

from __future__ import annotations

import json
from importlib import import_module
from types import SimpleNamespace

import pytest
from functions_framework import create_app
from hypothesis import given
from hypothesis import strategies as st

from cloister.envelope import Sealed, seal_to
from cloister.errors import CloisterError, ConfigurationError, DeniedError, HandlerError
from cloister.jose import generate_key
from cloister_gcp.events import delivery_of, message_of, object_of
from cloister_gcp.functions import confidential
from support.gcp_events import Recorder, cloud_event, event

SECRET = "078-05-1120"
PUBSUB = ("google.cloud.pubsub.topic.v1.messagePublished", "//pubsub.googleapis.com/projects/p/topics/t")
STORAGE = (
    "google.cloud.storage.object.v1.finalized",
    "//storage.googleapis.com/projects/_/buckets/sample-bucket",
)

MAIN = """
import functions_framework
from cloister.errors import DeniedError
from cloister_gcp.events import message_of, object_of
from cloister_gcp.functions import confidential
from support.gcp_events import Recorder

recorder, seen = Recorder(), []

@functions_framework.http
@confidential("f@prod", client=recorder)
def http(request, *, enclave):
    body = request.get_json()
    if "fail" in body:
        raise ValueError(body["fail"])
    if "twice" in body:
        enclave(x="1")
    reply = enclave(x=body["x"])
    return {"reply": reply, "value": reply.value, "nothing": None}[body["return"]]

@functions_framework.http
@confidential("f@prod", on_error="answer", client=recorder)
def answers(request, *, enclave):
    if request.get_json()["fail"] == "ours":
        enclave(x=object)
    raise ValueError(request.get_json()["fail"])

@functions_framework.cloud_event
@confidential("f@prod", client=recorder)
def events(event, *, enclave):
    seen.append(message_of(event) if "pubsub" in event["type"] else object_of(event))
    enclave(x="1")
    enclave(x="2")
    return "this goes nowhere"

@functions_framework.cloud_event
@confidential("f@prod", client=recorder)
def failing(event, *, enclave):
    data, _ = message_of(event)
    raise ValueError(data.decode())

@functions_framework.http
@confidential("f@prod", client=recorder)
def push(request, *, enclave):
    seen.append(message_of(request))
    enclave(x="1")

@confidential("f@prod", client=recorder)
def background(data, context, *, enclave):
    seen.append(message_of(data))
    enclave(x="1")
"""


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "main.py"
    path.write_text(MAIN)

    def start(target, kind="http"):
        made = create_app(target, str(path), signature_type=kind)
        # As a server does it: an error becomes an answer instead of reaching the test.
        made.config["PROPAGATE_EXCEPTIONS"] = False
        return made.test_client(), import_module("main")

    return start


@pytest.fixture(scope="session")
def sealed():
    return seal_to("a number", generate_key("HPKE-7-KE").public(), kid="ssn.1")


# --- HTTP ---


@pytest.mark.parametrize(
    ("returned", "status", "body"),
    [("reply", 200, {"value": 1, "receipt": "r-1"}), ("value", 200, 1), ("nothing", 204, None)],
)
def test_what_a_function_returns_is_the_answer(app, returned, status, body):
    client, _ = app("http")
    answer = client.post("/", json={"x": "1", "return": returned})
    assert (answer.status_code, answer.get_json(silent=True)) == (status, body)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("text", "text/plain; charset=utf-8"),
        (b"bytes", "application/octet-stream"),
        ([1], "application/json"),
        ({"a": 1}, "application/json"),
        ("SEALED", "application/jose"),
    ],
)
def test_each_result_has_its_type(sealed, result, kind):
    result = sealed if result == "SEALED" else result

    @confidential("f@prod", client=Recorder())
    def handler(request, *, enclave):
        return result

    body, status, headers = handler(SimpleNamespace(headers={}, method="GET"))
    assert (status, headers["Content-Type"]) == (200, kind)
    assert body == (result if isinstance(result, str | bytes) else json.dumps(result))


def test_a_response_of_your_own_stays_as_it_is():
    @confidential("f@prod", client=Recorder())
    def handler(request, *, enclave):
        return "made", 201, {"X-Own": "1"}

    assert handler(SimpleNamespace(headers={}, method="GET")) == ("made", 201, {"X-Own": "1"})


def test_nothing_names_a_plain_request_so_its_calls_have_no_key(app):
    client, main = app("http")
    client.post("/", json={"x": "1", "return": "value"})
    assert main.recorder.keys == [None]


def test_an_error_reaches_neither_the_caller_nor_the_log_with_data(app, caplog, capsys):
    client, _ = app("http")
    answer = client.post("/", json={"x": "1", "fail": SECRET})
    assert answer.status_code == 500
    written = answer.get_data(as_text=True) + caplog.text + "".join(capsys.readouterr())
    assert "ValueError at main.py:" in written
    assert SECRET not in written
    assert 'body["fail"]' not in written


def test_an_error_of_cloister_is_a_problem_where_that_is_asked_for(app, monkeypatch):
    client, main = app("answers")

    def refuse(*_args, **_options):
        raise DeniedError("no grant for invoke")

    monkeypatch.setitem(refuse.__globals__, "__name__", "cloister.client")
    monkeypatch.setattr(main.recorder, "invoke", refuse)
    answer = client.post("/", json={"fail": "ours"})
    assert answer.status_code == 403
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["code"] == "denied"
    answer = client.post("/", json={"fail": SECRET})
    assert answer.status_code == 500
    assert SECRET not in answer.get_data(as_text=True)


# --- events ---


def test_a_published_message_is_handled_and_its_repetition_repeats_nothing(app):
    client, main = app("events", "cloudevent")
    for _ in range(2):
        answer = client.post("/", headers=cloud_event(*PUBSUB), data=json.dumps(event("pubsub_push")))
        assert (answer.status_code, answer.get_data()) == (200, b"OK")
    assert main.seen == [(b"test message 3", {"attr1": "attr1-value"})] * 2
    first, second, *again = main.recorder.keys
    assert again == [first, second]
    assert first != second


@pytest.mark.parametrize(
    "changed", [{"ce-id": "2"}, {"ce-source": "//pubsub.googleapis.com/projects/p/topics/u"}]
)
def test_another_event_has_other_keys(app, changed):
    client, main = app("events", "cloudevent")
    for headers in cloud_event(*PUBSUB), cloud_event(*PUBSUB, **changed):
        client.post("/", headers=headers, data=json.dumps(event("pubsub_push")))
    assert len(set(main.recorder.keys)) == 4


def test_an_object_of_storage_is_named_with_its_generation(app):
    client, main = app("events", "cloudevent")
    answer = client.post("/", headers=cloud_event(*STORAGE), data=json.dumps(event("storage_finalized")))
    assert answer.status_code == 200
    assert main.seen == [("sample-bucket", "MyFile", 96883251)]


def test_a_failing_event_raises_so_that_it_comes_again_and_tells_nothing(app, caplog, capsys):
    client, _ = app("failing", "cloudevent")
    answer = client.post("/", headers=cloud_event(*PUBSUB), data=json.dumps(event("pubsub_push")))
    assert answer.status_code == 500
    written = answer.get_data(as_text=True) + caplog.text + "".join(capsys.readouterr())
    assert "ValueError" in written
    assert "test message" not in written


def test_a_push_subscription_is_named_by_its_message(app):
    client, main = app("push")
    body = event("pubsub_push")
    other = {**body, "message": {**body["message"], "messageId": "another"}}
    for sent in (body, body, other):
        assert client.post("/", json=sent).status_code == 204
    first, again, another = main.recorder.keys
    assert first == again
    assert first != another
    assert main.seen[0] == (b"test message 3", {"attr1": "attr1-value"})


# functions-framework calls a function of the CloudEvents SDK that its authors have deprecated.
@pytest.mark.filterwarnings("ignore:is_binary is deprecated")
def test_a_function_of_the_first_generation_is_named_by_its_event(app):
    client, main = app("background", "event")
    body = {
        "context": {
            "eventId": "1144231683168617",
            "timestamp": "2020-05-06T07:33:34.556Z",
            "eventType": "google.pubsub.topic.publish",
            "resource": {"service": "pubsub.googleapis.com", "name": "projects/p/topics/t", "type": "x"},
        },
        "data": event("pubsub_push")["message"],
    }
    for _ in range(2):
        assert client.post("/", json=body).status_code == 200
    first, again = main.recorder.keys
    assert first == again is not None


@pytest.mark.parametrize(
    "document", [None, {}, [], {"data": 7}, {"data": "%"}, {"message": "x"}, "text"], ids=repr
)
def test_what_carries_no_message_is_told_so(document):
    if document == {}:
        assert message_of(document) == (b"", {})
        return
    with pytest.raises(ConfigurationError):
        message_of(document)


@pytest.mark.parametrize(
    "document",
    [None, {}, {"bucket": "b", "name": "n"}, {"bucket": "b", "name": 1, "generation": 1}, "text"],
    ids=repr,
)
def test_what_is_about_no_object_is_told_so(document):
    with pytest.raises(ConfigurationError):
        object_of(document)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["message", "data", "subscription", "messageId"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_any_document_is_read_or_refused(value):
    request = SimpleNamespace(
        headers={}, method="POST", is_json=True, content_length=1, get_json=lambda *, silent: value
    )
    named = delivery_of((request,))
    assert named is None or all(isinstance(part, str) and part for part in named)
    for read in (message_of, object_of):
        for given_ in (value, request):
            try:
                read(given_)
            except CloisterError as error:
                assert type(error) is ConfigurationError  # noqa: PT017 (either outcome is right)


# --- the declaration ---


def test_the_platform_sees_one_parameter():
    import inspect

    @confidential("f@prod", client=Recorder())
    def handler(request, *, enclave):
        """What it does."""

    assert list(inspect.signature(handler).parameters) == ["request"]
    assert (handler.__name__, handler.__doc__) == ("handler", "What it does.")


def test_what_cannot_work_is_refused():
    async def waits(request, *, enclave): ...
    def takes_none(request): ...

    for handler in (waits, takes_none, 7):
        with pytest.raises(ConfigurationError):
            confidential("f@prod")(handler)
    with pytest.raises(ConfigurationError):
        confidential("f@prod", on_error="ignore")
    with pytest.raises(ConfigurationError):
        confidential("f")


def test_an_error_without_data_refers_to_nothing():
    @confidential("f@prod", client=Recorder())
    def handler(request, *, enclave):
        raise ValueError(SECRET)

    with pytest.raises(HandlerError) as caught:
        handler(SimpleNamespace(headers={}, method="GET"))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert isinstance(Sealed, type)
