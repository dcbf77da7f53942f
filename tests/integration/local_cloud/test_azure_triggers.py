"""Functions that call the enclave under Microsoft's runtime: every trigger, from recorded events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from local_cloud.azure_functions import AzureFunctions, TriggerFailedError
from local_cloud.ca import LocalCA
from support import require

EVENTS = Path(__file__).parents[2] / "events" / "azure"
SECRET = "the-plaintext-nobody-may-see"

APP = '''
from __future__ import annotations

import json
import os

import azure.functions as func

from cloister.receipts import Receipt
from cloister.reply import Reply
from cloister_azure import AsyncEnclave, Enclave, confidential


class Recorder:
    """Stands in for the client, and writes down what it is asked."""

    def invoke(self, function, /, *, context=None, idempotency_key=None, purpose=None, **inputs):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(json.dumps({"function": function, "key": idempotency_key, **inputs}) + "\\n")
        return Reply(value=True, receipt=Receipt(id="r-1", token="a.b.c"))


app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
client = Recorder()


@app.route(route="sync", methods=["POST"])
@confidential("f@prod", client=client)
def sync(req: func.HttpRequest, *, enclave: Enclave) -> func.HttpResponse:
    return enclave(**req.get_json())


@app.route(route="asynchronous", methods=["POST"])
@confidential("f@prod", client=client, on_error="answer")
async def asynchronous(req: func.HttpRequest, context: func.Context, *, enclave: AsyncEnclave) -> dict:
    reply = await enclave(function_name=context.function_name)
    return {"value": reply.value}


@app.route(route="failing", methods=["POST"])
@confidential("f@prod", client=client)
def failing(req: func.HttpRequest, *, enclave: Enclave) -> func.HttpResponse:
    raise ValueError(req.get_body().decode())


@app.queue_trigger(arg_name="msg", queue_name="in", connection="Q")
@app.queue_output(arg_name="$return", queue_name="out", connection="Q")
@confidential("f@prod", client=client)
def queue(msg: func.QueueMessage, *, enclave: Enclave) -> str:
    return enclave(id=msg.id)


@app.queue_trigger(arg_name="msg", queue_name="text", connection="Q")
@confidential("f@prod", client=client)
def queue_of_text(msg: str, *, enclave: Enclave) -> None:
    enclave(text=msg)


@app.blob_trigger(arg_name="stream", path="images/{name}", connection="B")
@confidential("f@prod", client=client)
async def blob(stream: func.InputStream, *, enclave: AsyncEnclave) -> None:
    await enclave(text=stream.read().decode())


@app.event_hub_message_trigger(arg_name="event", event_hub_name="h", connection="H", cardinality="one")
@confidential("f@prod", client=client)
def event_hub_one(event: func.EventHubEvent, *, enclave: Enclave) -> None:
    enclave(number=event.sequence_number)


@app.event_hub_message_trigger(arg_name="events", event_hub_name="h", connection="H", cardinality="many")
@confidential("f@prod", client=client)
def event_hub_batch(events: list[func.EventHubEvent], *, enclave: Enclave) -> None:
    enclave(numbers=[event.sequence_number for event in events])


@app.event_hub_message_trigger(arg_name="event", event_hub_name="h", connection="H", cardinality="many")
@confidential("f@prod", client=client, per="record")
def event_hub_many(event: func.EventHubEvent, *, enclave: Enclave) -> None:
    if b"good1" in event.get_body() and os.path.exists(os.environ["FAIL"]):
        raise ValueError(os.environ["SECRET"])
    enclave(number=event.sequence_number)


@app.service_bus_queue_trigger(arg_name="msg", queue_name="s", connection="S")
@confidential("f@prod", client=client)
def service_bus(msg: func.ServiceBusMessage, *, enclave: Enclave) -> None:
    enclave(message=msg.message_id)


@app.timer_trigger(arg_name="tick", schedule="0 */5 * * * *")
@confidential("f@prod", client=client)
def timer(tick: func.TimerRequest, *, enclave: Enclave) -> None:
    enclave(late=tick.past_due)


@app.event_grid_trigger(arg_name="event")
@confidential("f@prod", client=client)
def event_grid(event: func.EventGridEvent, *, enclave: Enclave) -> None:
    enclave(subject=event.subject)
'''


class World:
    def __init__(self, app: AzureFunctions, ca: LocalCA, folder: Path) -> None:
        self.app, self._ca, self._calls, self.fail = app, ca, folder / "calls", folder / "fail"

    def calls(self) -> list[dict]:
        """What was asked since this was looked at last."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def trigger(self, name: str, event: str):
        recorded = json.loads((EVENTS / f"{event}.json").read_text())
        return self.app.trigger(name, recorded["data"], recorded["metadata"])

    def post(self, path: str, content: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # REQUESTS_CA_BUNDLE would replace the authority
            return session.post(
                f"{self.app.url}/api/{path}", data=content, verify=str(self._ca.pem_path), timeout=60
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    python = require.azure_runtime()
    folder = tmp_path_factory.mktemp("app")
    (folder / "function_app.py").write_text(APP)
    environment = {"CALLS": str(folder / "calls"), "FAIL": str(folder / "fail"), "SECRET": SECRET}
    with LocalCA() as ca, AzureFunctions(folder, ca=ca, environment=environment, python=python) as app:
        yield World(app, ca, folder)


def test_http_functions_answer_with_what_the_enclave_let_out(world):
    answer = world.post("sync", '{"history": "h"}')
    assert (answer.status_code, answer.json()) == (200, {"value": True, "receipt": "r-1"})
    assert world.calls() == [{"function": "f@prod", "key": None, "history": "h"}]
    assert world.post("asynchronous", "").json() == {"value": True}
    assert world.calls() == [{"function": "f@prod", "key": None, "function_name": "asynchronous"}]


def test_what_a_function_raises_reaches_neither_azure_nor_the_caller(world):
    answer = world.post("failing", SECRET)
    report = world.app.reports[-1]
    assert answer.status_code == 500
    assert "ValueError at function_app.py" in report.message  # the operator learns type and place
    assert SECRET not in answer.text + report.message + report.stack + world.app.logs
    assert "raise ValueError" not in report.stack


@pytest.mark.parametrize(
    ("function", "event", "expected"),
    [
        ("queue", "queue", {"id": "800ae4b3-bdd2-4c08-badd-f08e5a34b865"}),
        ("blob", "blob", {"text": "a blob"}),
        ("event_hub_one", "event_hub_one", {"number": 47}),
        ("event_hub_batch", "event_hub_many", {"numbers": [47, 48]}),
        ("service_bus", "service_bus", {"message": "87c66eaf88e84119b66a26278a7b4149"}),
        ("timer", "timer", {"late": False}),
        ("event_grid", "event_grid", {"subject": "eventhubs/test"}),
    ],
)
def test_what_is_delivered_twice_is_one_call_to_the_enclave(world, function, event, expected):
    world.trigger(function, event)
    world.trigger(function, event)
    first, again = world.calls()
    assert first == again
    assert len(first["key"]) == 43
    assert first.items() >= expected.items()


def test_text_of_a_queue_has_no_name_and_gets_none(world):
    world.trigger("queue_of_text", "queue")
    (call,) = world.calls()
    assert call["key"] is None
    assert json.loads(call["text"])["id"] == 1005


def test_an_output_binding_gets_text(world):
    returned = world.trigger("queue", "queue")
    world.calls()
    assert json.loads(returned["string"]) == {"value": True, "receipt": "r-1"}


def test_a_batch_with_a_failing_event_is_tried_whole_fails_and_repeats_nothing(world):
    world.fail.touch()
    with pytest.raises(TriggerFailedError) as failed:
        world.trigger("event_hub_many", "event_hub_many")
    world.fail.unlink()
    assert "ValueError" in failed.value.report.message
    assert SECRET not in failed.value.report.message + failed.value.report.stack + world.app.logs
    (second,) = world.calls()
    world.trigger("event_hub_many", "event_hub_many")
    calls = world.calls()
    assert [call["number"] for call in calls] == [47, 48]
    assert calls[1]["key"] == second["key"] != calls[0]["key"]
