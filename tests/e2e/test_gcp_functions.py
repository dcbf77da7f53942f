"""Cloud Run functions under the real functions-framework, against a real host: what is in their memory."""

from __future__ import annotations

import json

import pytest
import requests

from cloister_host.testing import embedded_host
from local_cloud.functions_framework_app import FunctionsFrameworkApp
from support.gcp_events import cloud_event
from support.memory import memory_of

FUNCTION = """
from typing import Annotated
from cloister.function import enum, function, sealed

@function("salary-band", output=enum("low", "high"), batch=BATCH)
def salary_band(salary: Annotated[KIND, sealed("salaries", context=["person"])]) -> KIND:
    return ["high" for _ in salary] if BATCH else "high" if len(salary) > 20 else "low"
"""

MAIN = """
import base64, json
import functions_framework
from cloister_gcp import Sealed, confidential, message_of, remote_function

@functions_framework.http
@confidential("salary-band@prod")
def http(request, *, enclave):
    body = request.get_json()
    return enclave(salary=body["salary"], context={"person": body["person"]})

@functions_framework.cloud_event
@confidential("salary-band@prod")
def event(event, *, enclave):
    body = json.loads(message_of(event)[0])
    reply = enclave(salary=body["salary"], context={"person": body["person"]})
    print("band", reply.value, "receipt", reply.receipt.id)

@remote_function("salary-bands@prod", context=["person"])
def remote(salary: Sealed, person: str) -> str: ...
"""

# Long enough to be found in memory if it is there, and in no other place of this test's own.
PLAINTEXT = "seventy-three thousand and eleven"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant("acme")
        with tenant.admin as admin:
            admin.call("key.create", {"key": "salaries", "purpose": "seal"})
            for name, batch, kind in ("salary-band", False, "str"), ("salary-bands", True, "list[str]"):
                folder = tmp_path_factory.mktemp("function")
                source = FUNCTION.replace("BATCH", str(batch)).replace("KIND", kind)
                (folder / "salary_band.py").write_text(source.replace('"salary-band"', f'"{name}"'))
                tenant.deploy(folder)
            grants = [("invoke", f"function/{name}") for name in ("salary-band", "salary-bands")]
            tenant.principal("app", grants, kind="faas")
            with tenant.client("owner", [("seal", "key/salaries")]) as owner:
                salary = str(owner.seal(PLAINTEXT, key="salaries", context={"person": "ann"}))
            folder = tmp_path_factory.mktemp("app")
            (folder / "main.py").write_text(MAIN)

            def start(target, **environment):
                return FunctionsFrameworkApp(
                    target,
                    source=folder / "main.py",
                    environment={**tenant.environment("app"), **environment},
                )

            yield start, salary


def requests_of(salary):
    body = {"salary": salary, "person": "ann"}
    remote = {"requestId": "r", "caller": "c", "calls": [[salary, "ann"]]}
    return {"http": (body, {"value": "high"}), "remote": (remote, {"replies": ["high"]})}


@pytest.mark.parametrize("target", ["http", "remote"])
def test_no_plaintext_that_arrived_sealed_is_ever_in_the_memory_of_the_cloud_run_function(world, target):
    start, salary = world
    body, expected = requests_of(salary)[target]
    with start(target) as app:
        for number in range(3):
            answer = requests.post(app.url, json={**body, "requestId": str(number)}, timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json().items() >= expected.items()
        memory = memory_of(app.pid)
    assert salary.encode() in memory, "the search finds what is there"
    assert PLAINTEXT.encode() not in memory


def test_an_event_that_google_delivers_twice_has_one_effect(world):
    import base64

    start, salary = world
    data = base64.b64encode(json.dumps({"salary": salary, "person": "ann"}).encode()).decode()
    headers = cloud_event("google.cloud.pubsub.topic.v1.messagePublished", "//pubsub.googleapis.com/t")
    with start("event") as app:
        for _ in range(2):
            sent = json.dumps({"message": {"data": data}, "subscription": "s"})
            assert requests.post(app.url, headers=headers, data=sent, timeout=60).status_code == 200
        lines = [line for line in app.logs.splitlines() if line.startswith("band")]
    first, again = lines
    assert first == again
    assert first.startswith("band high receipt ")
