"""What a function behind `from_enclave` gets, what Azure sees of it, and what gets out."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import subprocess
import sys
import time
import typing
from dataclasses import dataclass

import azure.functions as func
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister import jose
from cloister.errors import ConfigurationError, HandlerError, UnavailableError
from cloister.protocol import payload_digest
from cloister_azure import BlobOnce, Delivery, from_enclave
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.keysets import KeysetManager

ORIGIN = "https://cards.example"
URL = f"{ORIGIN}/api/pins"
DIGEST = "ab" * 32
PAYLOAD = {"account": "ACC-7", "token": "t0ken"}
POLICY = """
version = 1
environment = "simulated"
deployment = "{deployment}"
[[tee.simulated.reference]]
name = "test"
measurement = "sha256:test"
[config]
unseal = "file"
"root.environment" = "simulated"
"""


@dataclass(frozen=True)
class PinToken:
    account: str
    token: str


class Memory:
    """Records in memory."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.down = False

    def recorded(self, delivery_id):
        self._answer()
        return delivery_id in self.records

    def record(self, delivery_id, content, metadata):
        self._answer()
        return self.records.setdefault(delivery_id, content) is content

    def _answer(self):
        if self.down:
            raise UnavailableError("the store is down")


@pytest.fixture(scope="module")
def keysets():
    return KeysetManager(
        deployment_key=jose.generate_key("EdDSA"),
        log_key=jose.generate_key("EdDSA", kid="log-1"),
        attester=SimulatedAttester("sha256:test"),
        config={
            "version": "0",
            "store": "sqlite",
            "unseal": "file",
            "root": {"environment": "simulated", "origin": "generated"},
            "sandbox": {"level": "process", "layers": []},
            "debug": [],
        },
        holders=({"format": "simulated", "measurements": {"measurement": "sha256:test"}, "minimum": {}},),
        clock=time.time,
    )


@pytest.fixture
def app_settings(keysets, tmp_path, monkeypatch):
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(deployment=keysets.keyset().deployment))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOISTER_POLICY", str(policy))
    monkeypatch.setenv("CLOISTER_TENANT", "acme")
    monkeypatch.setenv("CLOISTER_RECEIVER_URL", ORIGIN)
    return monkeypatch


@pytest.fixture
def sent(keysets):
    def send(*, payload=PAYLOAD, body=None, method="POST", url=URL, **claims):
        full = {
            "aud": ORIGIN,
            "htm": "POST",
            "htu": URL,
            "tenant": "acme",
            "function": "pin-transfer",
            "function_digest": DIGEST,
            "delivery_id": "delivery-0000000001",
            "payload_digest": payload_digest(payload),
            **claims,
        }
        proof = {"delivery": keysets.sign_delivery(full), "staple": keysets.staple().to_json()}
        content = json.dumps({"payload": payload, "cloister": proof}).encode()
        return func.HttpRequest(method=method, url=url, body=content if body is None else body)

    return send


class Receiver:
    """A function that stores what it gets, and its record."""

    def __init__(self, **options) -> None:
        self.once = Memory()
        self.runs = []
        self.answer = func.HttpResponse(status_code=204)
        self.stores = True

        @from_enclave(options.pop("function", "pin-transfer@prod"), once=self.once, **options)
        def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:
            self.runs.append(delivery)
            if self.stores:
                delivery.store({"token": delivery.payload.token})
            return self.answer

        self.receive = receive

    def __call__(self, request):
        return self.receive(req=request)


def answered(response):
    return response.status_code, json.loads(response.get_body())


# --- what Azure sees ---


def test_azure_sees_the_function_without_its_delivery():
    app = func.FunctionApp()

    @app.route(route="pins", methods=["POST"])
    @from_enclave("pin-transfer@prod", once=Memory())
    async def receive(
        req: func.HttpRequest, context: func.Context, *, delivery: Delivery[PinToken]
    ) -> func.HttpResponse:
        """Receive."""

    (indexed,) = app.get_functions()
    seen = indexed.get_user_function()
    assert indexed.get_function_name() == seen.__name__ == "receive"
    assert seen.__doc__ == "Receive."
    assert list(inspect.signature(seen).parameters) == ["req", "context"]
    assert typing.get_type_hints(seen) == {
        "req": func.HttpRequest,
        "context": func.Context,
        "return": func.HttpResponse,
    }
    assert inspect.iscoroutinefunction(seen)


def test_a_synchronous_function_stays_one():
    assert not inspect.iscoroutinefunction(Receiver().receive)


def test_a_function_without_a_delivery_cannot_be_decorated():
    with pytest.raises(ConfigurationError, match="delivery"):

        @from_enclave("pin-transfer@prod", once=Memory())
        def receive(req: func.HttpRequest) -> func.HttpResponse: ...


@pytest.mark.parametrize("name", ["", "Pin@prod", "pin-transfer@", "pin-transfer@PROD", "pin transfer@prod"])
def test_a_name_that_is_none_cannot_be_used(name):
    with pytest.raises(ConfigurationError):
        from_enclave(name, once=Memory())(lambda req, *, delivery: None)


def test_importing_the_adapter_loads_nothing_of_azure():
    code = "import sys, cloister_azure; print([m for m in sys.modules if m.split('.')[0] == 'azure'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


# --- deliveries ---


def test_a_delivery_reaches_the_function_as_its_type(app_settings, sent):
    receiver = Receiver()
    assert receiver(sent()).status_code == 204
    (delivery,) = receiver.runs
    assert delivery.payload == PinToken(account="ACC-7", token="t0ken")
    assert (delivery.id, delivery.function, delivery.digest) == (
        "delivery-0000000001",
        "pin-transfer",
        DIGEST,
    )
    assert delivery.environment == "simulated"
    assert "t0ken" not in repr(delivery)
    assert receiver.once.records == {"delivery-0000000001": b'{"token": "t0ken"}'}


def test_an_async_function_gets_its_delivery_too(app_settings, sent):
    once = Memory()

    @from_enclave("pin-transfer@prod", once=once)
    async def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:
        await asyncio.to_thread(delivery.store, delivery.payload.token)
        return func.HttpResponse(status_code=204)

    assert asyncio.run(receive(req=sent())).status_code == 204
    assert once.records == {"delivery-0000000001": b"t0ken"}
    assert answered(asyncio.run(receive(req=sent()))) == (200, {"repeated": True})


def test_a_repeated_delivery_does_not_run_the_function_again(app_settings, sent):
    receiver = Receiver()
    receiver(sent())
    assert answered(receiver(sent())) == (200, {"repeated": True})
    assert len(receiver.runs) == 1


def test_of_two_sendings_at_once_one_has_the_effect(app_settings, sent):
    receiver = Receiver()
    receiver.once.recorded = lambda _id: False  # both look before either writes
    receiver(sent())
    receiver(sent())
    first, second = receiver.runs
    assert first.is_stored
    assert second.is_stored
    assert not second.store(b"other")
    assert receiver.once.records == {"delivery-0000000001": b'{"token": "t0ken"}'}


def test_a_function_with_its_effect_elsewhere_is_recorded_when_it_has_succeeded(app_settings, sent):
    receiver = Receiver()
    receiver.stores = False
    receiver(sent())
    assert receiver.once.records == {"delivery-0000000001": b""}


def test_a_function_that_answers_with_a_failure_is_not_recorded(app_settings, sent):
    receiver = Receiver()
    receiver.stores, receiver.answer = False, func.HttpResponse(status_code=409)
    assert receiver(sent()).status_code == 409
    assert receiver.once.records == {}


def test_a_store_that_is_down_lets_the_host_send_again(app_settings, sent):
    receiver = Receiver()
    receiver.once.down = True
    assert answered(receiver(sent())) == (503, {"error": "unavailable"})
    assert receiver.runs == []


# --- calls that are refused ---


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "https://other.example"},
        {"aud": f"{ORIGIN}:8443"},
        {"aud": None},
        {"tenant": "other"},
        {"function": "pin-reveal"},
        {"htu": "https://other.example/api/pins"},
        {"htu": f"{ORIGIN}/api/other"},
        {"htm": "PUT"},
        {"method": "PUT"},
        {"url": f"{ORIGIN}/api/other"},
        {"delivery_id": "../settings/00000001"},
        {"payload_digest": payload_digest({})},
        {"body": b"{}"},
    ],
    ids=str,
)
def test_what_is_no_delivery_for_this_function_is_refused_without_a_reason(
    app_settings, sent, change, caplog
):
    receiver = Receiver()
    with caplog.at_level(logging.WARNING):
        assert answered(receiver(sent(**change))) == (401, {"error": "unverified"})
    assert receiver.runs == []
    assert receiver.once.records == {}
    assert "delivery refused" in caplog.text  # the operator learns more
    assert "t0ken" not in caplog.text


def test_the_host_that_a_call_names_counts_for_nothing(app_settings, sent):
    receiver = Receiver()
    assert receiver(sent(url="https://internal.azurewebsites.net/api/pins")).status_code == 204
    spoofed = sent(
        url="https://other.example/api/pins",
        htu="https://other.example/api/pins",
        delivery_id="delivery-0000000002",
    )
    assert receiver(spoofed).status_code == 401


def test_behind_a_gateway_the_url_is_what_the_decorator_says(app_settings, sent):
    receiver = Receiver(url="https://cards.example/pins")
    assert receiver(sent(htu="https://cards.example/pins")).status_code == 204
    assert receiver(sent(delivery_id="delivery-0000000002")).status_code == 401


@pytest.mark.parametrize("options", [{"digests": [DIGEST]}, {"function": f"pin-transfer@{DIGEST}"}], ids=str)
def test_a_pinned_digest_lets_that_code_in_and_no_other(app_settings, sent, options):
    receiver = Receiver(**options)
    assert receiver(sent()).status_code == 204
    other = sent(function_digest="cd" * 32, delivery_id="delivery-0000000002")
    assert receiver(other).status_code == 401


@pytest.mark.parametrize("name", ["CLOISTER_POLICY", "CLOISTER_TENANT", "CLOISTER_RECEIVER_URL"])
def test_without_a_setting_nothing_is_let_in(app_settings, sent, name, caplog):
    app_settings.delenv(name)
    receiver = Receiver()
    with caplog.at_level(logging.WARNING):
        assert answered(receiver(sent())) == (500, {"error": "configuration"})
    assert receiver.runs == []
    assert name in caplog.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_get_in(app_settings, sent, data):
    good = sent().get_body()
    position = data.draw(st.integers(0, len(good) - 1))
    mutated = good[:position] + data.draw(st.binary(max_size=8)) + good[position + 1 :]
    for body in (data.draw(st.binary(max_size=200)), mutated):
        receiver = Receiver()
        response = receiver(sent(body=body))
        unchanged = response.status_code == 204 and json.loads(body) == json.loads(good)
        assert unchanged or answered(response) == (401, {"error": "unverified"})


# --- what the function raises ---


@pytest.mark.parametrize("kind", [ValueError, SystemExit, UnavailableError])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_function_raises_gets_out_without_data(app_settings, sent, kind, is_async):
    once = Memory()

    def fail(delivery):
        raise kind(f"cannot store {delivery.payload.token}")

    if is_async:

        @from_enclave("pin-transfer@prod", once=once)
        async def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:
            fail(delivery)

    else:

        @from_enclave("pin-transfer@prod", once=once)
        def receive(req: func.HttpRequest, *, delivery: Delivery[PinToken]) -> func.HttpResponse:
            fail(delivery)

    with pytest.raises(HandlerError) as raised:
        asyncio.run(receive(req=sent())) if is_async else receive(req=sent())
    assert kind.__name__ in str(raised.value)
    assert "t0ken" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    assert once.records == {}


# --- blobs ---


def test_a_connection_string_that_is_none_is_not_quoted(monkeypatch):
    monkeypatch.setenv("CARD_STORAGE", "AccountKey of somebody")
    with pytest.raises(ConfigurationError, match="CARD_STORAGE") as raised:
        BlobOnce("pins", connection="CARD_STORAGE").recorded("delivery-0000000001")
    assert "somebody" not in str(raised.value)


def test_storage_that_does_not_answer_is_unavailable():
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient("http://127.0.0.1:1/account", retry_total=0) as service:
        once = BlobOnce("pins", service=service)
        with pytest.raises(UnavailableError):
            once.recorded("delivery-0000000001")
        with pytest.raises(UnavailableError):
            once.record("delivery-0000000001", b"", {})
