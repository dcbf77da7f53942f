"""The PIN transfer on the real parts: awslambdaric, an enclave host, Microsoft's runtime, Azurite.

Whatever fails, repeats or lies between the clouds: one effect, and no PIN outside the enclave.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import rfc8785

from cloister import jose
from cloister.protocol.delivery import DELIVERY_TYP, payload_digest
from cloister_host.deliveries.schedule import Schedule
from cloister_host.testing import EmbeddedHost, embedded_host
from local_cloud.azure_functions import AzureFunctions, Fault
from local_cloud.ca import LocalCA
from support import require
from support.documents import DOCS, run_command

FOLDER = Path(__file__).parents[2] / "examples" / "pin_transfer"
PIN = "904711836205"  # as long as PINs get, so that it is nowhere by chance
FAST = Schedule(first_seconds=0.2, longest_seconds=1, attempts=8, poll_seconds=0.1)
PATH = "/api/pins"


def load(name):
    """A script of the example, under a name that no other example's script has."""
    spec = importlib.util.spec_from_file_location(f"pin_transfer_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


workflow = load("run")


def run_host(folder: Path, ca: LocalCA, schedule: Schedule = FAST):
    return embedded_host(
        folder,
        egress_trust_anchors=[ca.pem_path],
        egress_allow_private_addresses=True,
        deliveries=schedule,
    )


@pytest.fixture(scope="module")
def ca() -> Iterator[LocalCA]:
    require.azurite()
    require.azure_runtime()
    with LocalCA() as ca:
        yield ca


@pytest.fixture(scope="module")
def host(ca, tmp_path_factory) -> Iterator[EmbeddedHost]:
    with run_host(tmp_path_factory.mktemp("host"), ca) as host:
        yield host


@pytest.fixture(scope="module")
def cloud(host, ca):
    with workflow.pin_cloud(host, ca) as cloud:
        for action in ("delivery.manage", "audit.read"):
            cloud.tenant.admin.call("grant.create", {"principal": "admin", "action": action, "resource": "*"})
        yield cloud


def new_transfer(cloud, pin: str = PIN) -> dict[str, str]:
    return workflow.transfer_event(cloud.keypad, pin, account=f"ACC-{secrets.token_hex(4)}")


def invoked(cloud, event) -> dict[str, Any]:
    result = cloud.invoke(event)
    assert result.error is None, result.error
    return result.payload


def settled(cloud, delivery_id: str) -> dict[str, Any]:
    """The host's view of a delivery, once it is done with it."""
    after = ""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page = cloud.tenant.admin.call("delivery.list", {"after": after, "limit": 100})
        found = [item for item in page["deliveries"] if item["delivery_id"] == delivery_id]
        if found and found[0]["state"] != "pending":
            return found[0]
        after = page["next"] if not found else ""
        time.sleep(0.05)
    pytest.fail("the delivery was not settled")


def effects(cloud, account: str) -> list[dict[str, str]]:
    """Everything the card application holds for an account."""
    found = [json.loads(content) for content in cloud.stored().values() if content]
    return [item for item in found if item.get("account") == account]


# --- the good case ---


def test_the_card_application_holds_a_token_that_the_vault_knows_as_the_pin(cloud):
    event = new_transfer(cloud)
    answer = invoked(cloud, event)
    stored = json.loads(cloud.wait_until_stored(answer["delivery"]))
    assert stored == {"account": event["account"], "token": answer["token"]}
    grants = [("detokenize", "policy/pins")]
    with cloud.tenant.client(f"mailer-{secrets.token_hex(4)}", grants) as mailer:
        assert mailer.detokenize("pins", [stored["token"]]) == [PIN]


def test_the_app_runs_under_microsofts_runtime(cloud):
    assert cloud.cards.runtime.startswith("azure-functions-runtime")


def test_one_command_runs_it_all_and_shows_what_each_party_saw(ca):
    command = [sys.executable, str(FOLDER / "run.py")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    token = shown.split("Lambda got back")[1].split()[0]
    assert f'Azure stored      {{"account": "ACC-2201", "token": "{token}"}}' in shown
    assert "Lambda handled    eyJ" in shown


# --- one effect ---


@pytest.mark.parametrize(
    ("faults", "attempts"),
    [
        ([Fault.SERVER_ERROR, Fault.SERVER_ERROR], 3),
        ([Fault.RESET, Fault.RESET], 3),
        ([Fault.DROP_RESPONSE, Fault.DROP_RESPONSE], 3),
        ([Fault.DELAY], 1),
        ([Fault.CRASH], 2),
        ([Fault.RESET, Fault.CRASH, Fault.DROP_RESPONSE, Fault.SERVER_ERROR, Fault.DELAY], 5),
    ],
    ids=["500-before", "reset-before", "response-dropped", "delayed", "crash-after", "all-of-them"],
)
def test_one_effect_whatever_fails_between_host_and_app(cloud, faults, attempts):
    event = new_transfer(cloud)
    for fault in faults:
        cloud.cards.fail_next(fault)
    answer = invoked(cloud, event)
    delivery = settled(cloud, answer["delivery"])
    assert (delivery["state"], delivery["attempts"]) == ("delivered", attempts)
    assert effects(cloud, event["account"]) == [{"account": event["account"], "token": answer["token"]}]


def test_one_effect_when_the_app_is_dead_when_the_delivery_comes(cloud):
    event = new_transfer(cloud)
    cloud.cards.kill()
    answer = invoked(cloud, event)
    assert settled(cloud, answer["delivery"])["state"] == "delivered"
    assert len(effects(cloud, event["account"])) == 1


def test_a_caller_that_repeats_its_transfer_gets_the_same_token_and_one_effect(cloud):
    event = new_transfer(cloud)
    first = invoked(cloud, event)
    assert [invoked(cloud, event) for _ in range(2)] == [first, first]
    settled(cloud, first["delivery"])
    assert effects(cloud, event["account"]) == [{"account": event["account"], "token": first["token"]}]


def test_callers_that_repeat_one_transfer_at_once_have_one_effect(cloud):
    event = new_transfer(cloud)
    client = cloud.tenant.host.client(cloud.tenant.name, cloud.tenant.key_file("pin-lambda"))

    def invoke(_: int) -> tuple[str, str]:
        reply = client.invoke(
            "pin-transfer@prod",
            pin=event["pin"],
            account=event["account"],
            context={"account": event["account"]},
            idempotency_key=event["transfer"],
        )
        return reply.delivery_id, reply.value["token"]

    with client, ThreadPoolExecutor(4) as callers:
        replies = set(callers.map(invoke, range(4)))
    ((delivery_id, token),) = replies
    settled(cloud, delivery_id)
    assert effects(cloud, event["account"]) == [{"account": event["account"], "token": token}]


def test_a_delivery_that_is_pending_when_the_host_stops_has_one_effect_after_it_starts(ca, tmp_path):
    slow = Schedule(first_seconds=4, longest_seconds=4, attempts=8, poll_seconds=0.1)
    with ExitStack() as first_life:
        host = first_life.enter_context(run_host(tmp_path, ca, slow))
        with workflow.pin_cloud(host, ca) as cloud:
            cloud.cards.fail_next(Fault.SERVER_ERROR)
            event = new_transfer(cloud)
            answer = invoked(cloud, event)
            deadline = time.monotonic() + 20
            while not cloud.cards.requests and time.monotonic() < deadline:
                time.sleep(0.02)
            first_life.close()
            assert cloud.stored() == {}
            with run_host(tmp_path, ca) as again:
                cloud.wait_until_stored(answer["delivery"])
                # The caller never heard of the restart, and repeats its transfer.
                with again.client(cloud.tenant.name, cloud.tenant.key_file("pin-lambda")) as client:
                    repeated = client.invoke(
                        "pin-transfer@prod",
                        pin=event["pin"],
                        account=event["account"],
                        context={"account": event["account"]},
                        idempotency_key=event["transfer"],
                    )
                assert repeated.delivery_id == answer["delivery"]
                assert repeated.value["token"] == answer["token"]
            assert list(cloud.stored()) == [answer["delivery"]]
            assert json.loads(cloud.stored()[answer["delivery"]])["token"] == answer["token"]


# --- calls that are no deliveries for this endpoint ---


def proof(host: EmbeddedHost, claims: dict[str, Any]) -> dict[str, Any]:
    """What the host adds to a payload, with any claims."""
    keysets = host.host.keysets
    keyset = keysets.keyset()
    now = int(time.time())
    full = {"deployment": keyset.deployment, "keyset": keyset.digest, "iat": now, "exp": now + 300, **claims}
    token = jose.sign_compact(rfc8785.dumps(full), keysets._delivery_key.private, typ=DELIVERY_TYP)
    return {"delivery": token, "staple": keysets.staple().to_json()}


def body(
    cloud,
    *,
    url: str = "",
    path: str = PATH,
    host: EmbeddedHost | None = None,
    payload: Any = None,
    other_payload: Any = None,
    **claims: Any,
) -> bytes:
    """A delivery made by the host's own keys; with other claims or another payload where they are given."""
    payload = payload or {"account": "ACC-9", "token": "t" * 22}
    url = url or cloud.cards.url
    good = {
        "aud": url,
        "htm": "POST",
        "htu": url + path,
        "tenant": cloud.tenant.name,
        "function": "pin-transfer",
        "function_digest": cloud.function_digest,
        "delivery_id": secrets.token_urlsafe(16),
        "payload_digest": payload_digest(payload),
    }
    made = proof(host or cloud.tenant.host, good | claims)
    return json.dumps({"payload": other_payload or payload, "cloister": made}).encode()


def post(
    ca: LocalCA, app: AzureFunctions, content: bytes, path: str = PATH, **headers: str
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would replace the authority
        return session.post(
            app.url + path, data=content, headers=headers, verify=str(ca.pem_path), timeout=60
        )


@contextmanager
def nothing_changes(cloud) -> Iterator[None]:
    before = cloud.stored()
    yield
    assert cloud.stored() == before


def refused(response: requests.Response) -> bool:
    return (response.status_code, response.json()) == (401, {"error": "unverified"})


def test_a_delivery_in_good_order_is_taken(cloud, ca):
    delivery_id = secrets.token_urlsafe(16)
    assert post(ca, cloud.cards, body(cloud, delivery_id=delivery_id)).status_code == 204
    assert delivery_id in cloud.stored()


def test_a_recorded_delivery_that_is_sent_again_by_somebody_else_changes_nothing(cloud, ca):
    answer = invoked(cloud, new_transfer(cloud))
    cloud.wait_until_stored(answer["delivery"])
    captured = cloud.cards.requests[-1].body
    with nothing_changes(cloud):
        response = post(ca, cloud.cards, captured)
        assert (response.status_code, response.json()) == (200, {"repeated": True})


def test_a_captured_delivery_with_another_payload_is_refused(cloud, ca):
    answer = invoked(cloud, new_transfer(cloud))
    cloud.wait_until_stored(answer["delivery"])
    captured = json.loads(cloud.cards.requests[-1].body)
    captured["payload"]["account"] = "ACC-MALLORY"
    with nothing_changes(cloud):
        assert refused(post(ca, cloud.cards, json.dumps(captured).encode()))


def test_an_expired_delivery_is_refused(cloud, ca):
    now = int(time.time())
    with nothing_changes(cloud):
        assert refused(post(ca, cloud.cards, body(cloud, iat=now - 62, exp=now - 61)))
    assert "not fresh" in cloud.cards.logs


@pytest.mark.parametrize(
    "claims",
    [
        {"htu": "https://cards.example/api/pins"},
        {"aud": "https://cards.example"},
        {"htm": "PUT"},
        {"tenant": "somebody-else"},
        {"function": "pin-reveal"},
        {"delivery_id": "../../settings"},
        {"deployment": "x" * 43},
        {"keyset": "x" * 43},
    ],
    ids=lambda claims: next(iter(claims)),
)
def test_a_delivery_with_another_claim_is_refused(cloud, ca, claims):
    with nothing_changes(cloud):
        assert refused(post(ca, cloud.cards, body(cloud, **claims)))


def test_a_delivery_for_another_url_is_refused_though_the_host_header_names_it(cloud, ca):
    with nothing_changes(cloud):
        content = body(cloud, url="https://cards.example")
        assert refused(
            post(ca, cloud.cards, content, Host="cards.example", **{"X-Forwarded-Host": "cards.example"})
        )


def test_a_payload_that_was_not_the_signed_one_is_refused(cloud, ca):
    with nothing_changes(cloud):
        changed = {"account": "ACC-9", "token": "T" * 22}
        assert refused(post(ca, cloud.cards, body(cloud, other_payload=changed)))


def test_a_genuine_host_of_another_deployment_is_refused(cloud, ca, tmp_path):
    with run_host(tmp_path, ca) as other, nothing_changes(cloud):
        assert refused(post(ca, cloud.cards, body(cloud, host=other)))
        # The same with the staple of the right deployment.
        mixed = json.loads(body(cloud, host=other))
        mixed["cloister"]["staple"] = cloud.tenant.host.host.keysets.staple().to_json()
        assert refused(post(ca, cloud.cards, json.dumps(mixed).encode()))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"payload":1,"cloister":{}}', b"\xff"])
def test_what_is_no_delivery_is_refused(cloud, ca, content):
    with nothing_changes(cloud):
        assert refused(post(ca, cloud.cards, content))


# --- a function app that fails between its steps ---

FAILING = """
from __future__ import annotations

import os
from pathlib import Path

import azure.functions as func
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContainerClient
from cloister_azure import BlobOnce, Delivery, from_enclave

app = func.FunctionApp()
ONCE = BlobOnce("pins", connection="CARD_STORAGE")

def crash_once(step):
    marker = Path(os.environ["MARKERS"], step)
    if os.environ["STEP"] == step and not marker.exists():
        marker.touch()
        os._exit(1)

@app.route(route="pins", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@from_enclave("pin-transfer@prod", once=ONCE)
async def receive(req: func.HttpRequest, *, delivery: Delivery) -> func.HttpResponse:
    crash_once("before the effect")
    if os.environ["STEP"] == "raise":
        raise ValueError("cannot store " + delivery.payload["token"])
    delivery.store(delivery.payload)
    crash_once("after the effect")
    return func.HttpResponse(status_code=204)

@app.route(route="elsewhere", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@from_enclave("pin-transfer@prod", once=ONCE)
def elsewhere(req: func.HttpRequest, *, delivery: Delivery) -> func.HttpResponse:
    with open(Path(os.environ["MARKERS"], "runs"), "a") as runs:
        runs.write("x")
    account = ContainerClient.from_connection_string(os.environ["CARD_STORAGE"], "accounts")
    with account:
        try:
            account.upload_blob(delivery.id, delivery.payload["token"])
        except ResourceExistsError:
            pass  # made before the crash, under the same key
        else:
            with open(Path(os.environ["MARKERS"], "effects"), "a") as effects:
                effects.write("x")
    crash_once("between effect and record")
    return func.HttpResponse(status_code=204)
"""


@contextmanager
def failing_app(cloud, ca, folder: Path, step: str) -> Iterator[AzureFunctions]:
    (folder / "function_app.py").write_text(FAILING)
    environment = {
        "CARD_STORAGE": cloud.storage.connection_string,
        "CLOISTER_TENANT": cloud.tenant.name,
        "CLOISTER_POLICY": str(cloud.tenant.host.policy),
        "MARKERS": str(folder),
        "STEP": step,
    }
    with AzureFunctions(
        folder, ca=ca, environment=lambda url: {**environment, "CLOISTER_RECEIVER_URL": url}
    ) as app:
        yield app


@pytest.mark.parametrize(("step", "second"), [("before the effect", 204), ("after the effect", 200)])
def test_one_effect_when_the_app_crashes(cloud, ca, tmp_path, step, second):
    delivery_id = secrets.token_urlsafe(16)
    with failing_app(cloud, ca, tmp_path, step) as app:
        assert post(ca, app, body(cloud, url=app.url, delivery_id=delivery_id)).status_code == 503
        assert (delivery_id in cloud.stored()) == (step == "after the effect")
        assert post(ca, app, body(cloud, url=app.url, delivery_id=delivery_id)).status_code == second
    assert [name for name in cloud.stored() if name == delivery_id] == [delivery_id]


def test_an_effect_elsewhere_is_one_though_the_app_dies_between_it_and_its_record(cloud, ca, tmp_path):
    delivery_id = secrets.token_urlsafe(16)
    path = "/api/elsewhere"
    with cloud.storage.client() as service:
        service.create_container("accounts")
    with failing_app(cloud, ca, tmp_path, "between effect and record") as app:

        def send():
            content = body(cloud, url=app.url, path=path, delivery_id=delivery_id)
            return post(ca, app, content, path=path).status_code

        assert send() == 503
        # The effect is there and nothing says so: the process was killed before the record.
        assert ((tmp_path / "effects").read_text(), delivery_id in cloud.stored()) == ("x", False)
        assert [send(), send(), send()] == [204, 200, 200]
    assert (tmp_path / "runs").read_text() == "xx"
    assert (tmp_path / "effects").read_text() == "x"
    assert cloud.stored()[delivery_id] == b""


def test_of_many_sendings_at_once_one_has_the_effect(cloud, ca, tmp_path):
    delivery_id = secrets.token_urlsafe(16)
    together = threading.Barrier(6)
    with failing_app(cloud, ca, tmp_path, "none") as app:

        def send(number):
            payload = {"account": f"ACC-{number}", "token": "t" * 22}
            content = body(cloud, url=app.url, delivery_id=delivery_id, payload=payload)
            together.wait(timeout=60)
            return post(ca, app, content).status_code

        with ThreadPoolExecutor(6) as senders:
            answers = list(senders.map(send, range(6)))
    assert set(answers) <= {200, 204}
    assert 204 in answers
    stored = json.loads(cloud.stored()[delivery_id])
    assert stored["account"] in {f"ACC-{number}" for number in range(6)}


def test_a_delivery_that_died_and_is_replayed_acts_once(cloud):
    event = new_transfer(cloud)
    # The app acts at the first sending, whose answer is lost; then it is out of order until it is dead.
    cloud.cards.fail_next(Fault.DROP_RESPONSE)
    cloud.cards.fail_next(Fault.SERVER_ERROR, times=FAST.attempts - 1)
    answer = invoked(cloud, event)
    assert settled(cloud, answer["delivery"])["state"] == "dead"
    assert len(effects(cloud, event["account"])) == 1
    cloud.tenant.admin.call("delivery.replay", {"delivery_id": answer["delivery"]})
    assert settled(cloud, answer["delivery"])["state"] == "delivered"
    assert effects(cloud, event["account"]) == [{"account": event["account"], "token": answer["token"]}]


def test_what_the_function_raises_reaches_neither_azure_nor_the_caller(cloud, ca, tmp_path):
    with failing_app(cloud, ca, tmp_path, "raise") as app, nothing_changes(cloud):
        response = post(ca, app, body(cloud, url=app.url))
        told = [response.text, app.logs, *(report.message + report.stack for report in app.reports)]
    assert response.status_code == 500
    assert "ValueError" in "".join(told)  # the operator learns the type and the place
    assert not any("cannot store" in text or "t" * 22 in text for text in told)


# --- no PIN outside the enclave ---


def test_a_pin_sealed_for_another_account_is_not_transferred(cloud):
    before = len(cloud.cards.requests)
    result = cloud.invoke({**new_transfer(cloud), "account": "ACC-MALLORY"})
    assert result.error.type == "OpenError"
    assert len(cloud.cards.requests) == before
    assert effects(cloud, "ACC-MALLORY") == []


def test_what_is_no_pin_is_refused_and_not_told(cloud):
    secret = "the pin is none"
    result = cloud.invoke(new_transfer(cloud, pin=secret))
    assert result.error.type == "FunctionError"
    assert not any(secret.encode() in post.body for post in cloud.function.posts)


def test_no_pin_is_in_requests_blobs_logs_or_the_hosts_files(cloud, host, capfd):
    answer = invoked(cloud, new_transfer(cloud))
    cloud.wait_until_stored(answer["delivery"])
    cloud.invoke({**new_transfer(cloud), "account": "ACC-MALLORY"})
    shown = capfd.readouterr()
    places = {
        "requests to Azure": [request.body for request in cloud.cards.requests],
        "headers to Azure": [repr(request.headers).encode() for request in cloud.cards.requests],
        "log of the card application": [cloud.cards.logs.encode()],
        "reports to Azure": [repr(cloud.cards.reports).encode()],
        "blobs": list(cloud.stored().values()),
        "posts of the Lambda runtime": [post.body for post in cloud.function.posts],
        "headers of the Lambda runtime": [repr(post.headers).encode() for post in cloud.function.posts],
        "log of the Lambda function": [cloud.function.logs.encode()],
        "the host's files": [path.read_bytes() for path in host.directory.rglob("*") if path.is_file()],
        "the host's log": [shown.out.encode(), shown.err.encode()],
    }
    # The search finds what is there: the token is in the blobs, and the account in requests.
    assert any(answer["token"].encode() in text for text in places["blobs"])
    assert all(places.values())
    for form in (PIN.encode(), PIN.encode().hex().encode(), base64.b64encode(PIN.encode()).rstrip(b"=")):
        assert [place for place, texts in places.items() if any(form in text for text in texts)] == []


# --- a whole file ---


def test_the_command_on_the_page_moves_a_file_of_pins_each_once(cloud, tmp_path):
    commands = re.search(r"```sh\n(.*?)```", (DOCS / "transfer.md").read_text(), re.DOTALL)[1]
    assert commands in (FOLDER / "README.md").read_text()
    events = [new_transfer(cloud) for _ in range(5)]
    (tmp_path / "pins.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for expected in ("5 transferred, 0 done before", "0 transferred, 5 done before"):
        settings = cloud.tenant.environment("pin-migration")
        assert expected in run_command(commands, tmp_path, settings)
    deliveries = [
        json.loads(line).get("delivery") for line in (tmp_path / "pins.state").read_text().splitlines()
    ]
    for delivery in filter(None, deliveries):
        cloud.wait_until_stored(delivery)
    for event in events:
        (stored,) = effects(cloud, event["account"])
        assert len(stored["token"]) > 8
