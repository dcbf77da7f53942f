"""Lambda handlers under the real awslambdaric, against a real host: event sources, errors, memory."""

from __future__ import annotations

import json

import pytest

from cloister.envelope.process import drop_data_keys
from cloister_host.testing import embedded_host
from local_cloud.lambda_runtime import LambdaRuntime
from support.aws_events import event
from support.memory import memory_of

FUNCTION = """
from typing import Annotated
from cloister.function import enum, function, sealed

@function("salary-band", output=enum("low", "high"))
def salary_band(salary: Annotated[str, sealed("salaries", context=["person"])]) -> str:
    return "high" if len(salary) > 20 else "low"
"""

APP = """
import json
from cloister_aws import confidential, seal_fields

def ask(enclave, body):
    return enclave(salary=body["salary"], context={"person": body["person"]})

@confidential("salary-band@prod")
def http(event, context, *, enclave):
    body = json.loads(event["body"])
    if body.get("fail"):
        raise ValueError(body["fail"])
    reply = ask(enclave, body)
    return {"band": reply.value, "receipt": reply.receipt.id}

@confidential("salary-band@prod", per="record")
async def queue(record, context, *, enclave):
    body = json.loads(record["body"])
    await enclave(salary=body["salary"], context={"person": body["person"]})

@seal_fields(event={"$.salary": "salaries"}, context={"person": "$.person"})
@confidential("salary-band@prod")
def intake(event, context, *, enclave):
    return {"band": ask(enclave, event).value, "salary": event["salary"]}
"""

# Long enough to be found in memory if it is there, and in no other place of this test's own.
PLAINTEXT = "seventy-two thousand and eleven"


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant("acme")
        tenant.admin.call("key.create", {"key": "salaries", "purpose": "seal"})
        folder = tmp_path_factory.mktemp("function")
        (folder / "salary_band.py").write_text(FUNCTION)
        tenant.deploy(folder)
        tenant.principal(
            "lambda", [("invoke", "function/salary-band"), ("seal", "key/salaries")], kind="faas"
        )
        yield tenant
        tenant.admin.close()


@pytest.fixture
def owner(tenant):
    with tenant.client("owner", [("seal", "key/salaries"), ("decrypt", "key/salaries")]) as client:
        yield client


@pytest.fixture
def running(tenant, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    environment = tenant.environment("lambda")
    started = []

    def start(handler, **more):
        function = LambdaRuntime(f"app.{handler}", directory=tmp_path, environment={**environment, **more})
        started.append(function)
        return function

    yield start
    for function in started:
        function.close()


@pytest.fixture(scope="module")
def salary(tenant):
    with tenant.client("uploader", [("seal", "key/salaries")]) as client:
        return client.seal(PLAINTEXT, key="salaries", context={"person": "ann"})


def test_no_plaintext_that_arrived_sealed_is_ever_in_the_memory_of_the_lambda_function(running, salary):
    function = running("http")
    request = event("powertools_apiGatewayProxyV2Event")
    request["body"] = json.dumps({"salary": salary, "person": "ann"})
    for _ in range(3):
        result = function.invoke(request)
        assert json.loads(result.payload["body"])["band"] == "high"
    memory = memory_of(function.pid)
    assert salary.encode() in memory, "the search finds what is there"
    assert PLAINTEXT.encode() not in memory


def test_an_http_api_gets_its_response(running, salary):
    function = running("http")
    request = event("powertools_apiGatewayProxyV2Event")
    request["body"] = json.dumps({"salary": salary, "person": "ann"})
    response = function.invoke(request).payload
    assert (response["statusCode"], response["isBase64Encoded"]) == (200, False)
    assert set(json.loads(response["body"])) == {"band", "receipt"}


def test_a_queue_gets_back_the_message_that_failed_and_no_other(running, salary):
    function = running("queue")
    bodies = [{"salary": salary, "person": "ann"}, {"salary": salary, "person": "bob"}]
    records = []
    for number, body in enumerate(bodies):
        record = event("powertools_sqsEvent")["Records"][0]
        records.append({**record, "messageId": f"m-{number}", "body": json.dumps(body)})
    result = function.invoke({"Records": records})
    assert result.payload == {"batchItemFailures": [{"itemIdentifier": "m-1"}]}, result
    assert "m-1" in function.logs


def test_a_field_is_sealed_before_the_handler_and_opens_for_its_owner_only(running, owner):
    function = running("intake")
    result = function.invoke({"salary": PLAINTEXT, "person": "ann"})
    assert result.payload["band"] == "high", result
    assert owner.open(result.payload["salary"], context={"person": "ann"}) == PLAINTEXT


def test_what_the_runtime_reports_of_a_failed_request_has_no_data(running):
    function = running("http")
    request = event("powertools_apiGatewayProxyV2Event")
    request["body"] = json.dumps({"fail": PLAINTEXT})
    result = function.invoke(request)
    assert result.error.type == "HandlerError"
    # What the function was given is not the leak; what it tells is.
    told = function.logs + "".join(f"{post.headers} {post.body!r}" for post in function.posts)
    assert PLAINTEXT not in told


def test_a_copy_of_a_snapshot_appraises_the_host_for_itself(running, salary):
    function = running("http", AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    request = event("powertools_apiGatewayProxyV2Event")
    request["body"] = json.dumps({"salary": salary, "person": "ann"})
    result = function.invoke(request)
    assert result.payload["statusCode"] == 200, result


def test_a_client_appraises_the_host_again_after_a_restore(tenant):
    with tenant.client("restored", [("seal", "key/salaries")]) as client:
        first = client.seal("x", key="salaries", context={"person": "ann"})
        asked = []
        post = client._transport.post
        client._transport.post = lambda path, *a, **k: asked.append(path) or post(path, *a, **k)
        client.seal("x", key="salaries", context={"person": "ann"})
        assert "/v1/attestation" not in asked
        drop_data_keys()
        second = client.seal("x", key="salaries", context={"person": "ann"})
    assert asked.count("/v1/attestation") == 1
    assert first.encrypted_key != second.encrypted_key
