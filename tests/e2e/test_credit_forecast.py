"""The credit forecast on the real parts: S3 (moto), awslambdaric, an enclave host, sealed from end to end."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pytest

from cloister.errors import ConfigurationError, DeniedError, OpenError
from cloister_host.testing import embedded_host
from local_cloud.lambda_runtime import LambdaRuntime

FOLDER = Path(__file__).parents[2] / "examples" / "credit_forecast"
CUSTOMERS = 5
LEAKING = """
from cloister_aws import confidential, s3

MEMORY = []

@confidential("credit-forecast@prod")
def handler(event, context, *, enclave):
    MEMORY.append(event["ssn"])
    if event.get("how") == "nested":
        try:
            int(event["ssn"])
        except ValueError as error:
            raise RuntimeError("cannot read " + event["ssn"]) from error
    if event.get("how") == "exit":
        raise SystemExit(event["ssn"])
    raise ValueError("cannot read 078-05-1120")  # the source line says it too: 078-05-1120
"""


def load(name):
    """A script of the example, under a name that no other example's script has."""
    spec = importlib.util.spec_from_file_location(f"credit_forecast_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


workflow = load("run")

# Found through the paths that the workflow adds.
from histories import DATA, read_histories  # noqa: E402
from model import forecast as direct_forecast  # noqa: E402
from officer import describe  # noqa: E402
from upload import object_key  # noqa: E402


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def histories():
    return dict(islice(read_histories(), CUSTOMERS))


@pytest.fixture(scope="module")
def parties(host, histories):
    with workflow.credit_cloud(host) as parties:
        parties.upload(histories.items())
        yield parties


@pytest.fixture
def restored(parties, histories):
    """The first two customers; their objects are put back after the test."""
    first, second = list(histories)[:2]
    before = {customer: parties.stored(customer) for customer in (first, second)}
    yield first, second
    for customer, body in before.items():
        parties.s3.put_object(Bucket=workflow.BUCKET, Key=object_key(customer), Body=body)


def store(parties, customer, body):
    parties.s3.put_object(Bucket=workflow.BUCKET, Key=object_key(customer), Body=body)


def opened(parties, customer):
    result = parties.invoke(customer)
    assert result.error is None, result.error
    return parties.officer.open(result.payload["forecast"], context={"customer": customer})


# --- the good case ---


def test_the_officer_reads_what_the_model_says_of_each_customer(parties, histories):
    for customer, history in histories.items():
        assert opened(parties, customer) == asdict(direct_forecast(history))


def test_a_customer_who_is_not_in_the_file_gets_a_forecast_too(parties, histories):
    history = next(iter(histories.values()))
    late = replace(history.months[-1], status=3, balance=88_123.45, payment=0)
    other = replace(history, credit_limit=90_000, months=[*history.months[-4:-1], late])
    parties.upload([("someone-new", other)])
    assert opened(parties, "someone-new") == asdict(direct_forecast(other))


def test_one_command_runs_it_all_and_shows_what_each_party_saw(histories):
    # In a process of its own, since moto's state is one a process.
    command = [sys.executable, str(FOLDER / "run.py"), str(DATA), "2"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert "2 credit histories sealed" in shown
    for history in list(histories.values())[:2]:
        assert describe(asdict(direct_forecast(history))) in shown
    assert len(re.findall(r"Lambda (?:read|returned) +eyJ[\w-]+\.\.\.", shown)) == 4
    assert len(set(re.findall(r"receipt +([0-9a-f]{32})\n", shown))) == 2


def test_the_audit_ties_the_receipt_to_the_code_that_answered(parties, histories):
    admin = parties.tenant.admin
    admin.call("grant.create", {"principal": "admin", "action": "audit.read", "resource": "*"})
    receipt = parties.invoke(next(iter(histories))).payload["receipt"]
    entries = [e for e in admin.call("audit.list", {})["entries"] if e["id"] == receipt]
    (entry,) = entries
    assert (entry["principal"], entry["kind"]) == ("forecast-lambda", "faas")
    assert entry["detail"]["digest"] == parties.function_digest


# --- who may not ---


@pytest.fixture
def lambda_client(host, parties):
    client = host.client(parties.tenant.name, parties.tenant.key_file("forecast-lambda"))
    yield client
    client.close()


def test_the_lambda_function_can_open_neither_history_nor_forecast(parties, histories, lambda_client):
    customer = next(iter(histories))
    sealed = [parties.stored(customer).decode(), parties.invoke(customer).payload["forecast"]]
    for value in sealed:
        with pytest.raises(DeniedError):
            lambda_client.open(value, context={"customer": customer})
        with pytest.raises(DeniedError):
            lambda_client.open_column([value], contexts=[{"customer": customer}])


@pytest.mark.parametrize("action", ["decrypt", "unwrap"])
def test_the_lambda_function_cannot_even_be_granted_sight(parties, action):
    grant = {"principal": "forecast-lambda", "action": action, "resource": "key/forecasts"}
    with pytest.raises(ConfigurationError, match="faas"):
        parties.tenant.admin.call("grant.create", grant)


def test_the_uploader_can_open_nothing_and_invoke_nothing(parties, histories):
    customer = next(iter(histories))
    sealed = parties.stored(customer).decode()
    with pytest.raises(DeniedError):
        parties.uploader.open(sealed, context={"customer": customer})
    with pytest.raises(DeniedError):
        parties.uploader.invoke("credit-forecast@prod", history=sealed, context={"customer": customer})


def test_the_officer_cannot_open_histories(parties, histories):
    customer = next(iter(histories))
    with pytest.raises(DeniedError):
        parties.officer.open(parties.stored(customer).decode(), context={"customer": customer})


def test_a_forecast_opens_for_its_own_customer_only(parties, histories):
    first, second = list(histories)[:2]
    sealed = parties.invoke(first).payload["forecast"]
    for wrong in ({"customer": second}, {}, None, {"customer": first, "x": "y"}):
        with pytest.raises(OpenError):
            parties.officer.open(sealed, context=wrong)


# --- bad objects: a clean error, and the next invocation works ---


def damaged(body, part):
    """The value with one character of one of its five parts changed."""
    parts = body.decode().split(".")
    text = parts[part]
    middle = len(text) // 2
    parts[part] = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    return ".".join(parts).encode()


@pytest.mark.parametrize("part", range(5), ids=["header", "encrypted key", "iv", "ciphertext", "tag"])
def test_a_changed_object_is_an_open_error(parties, restored, part):
    customer, _ = restored
    store(parties, customer, damaged(parties.stored(customer), part))
    result = parties.invoke(customer)
    assert result.payload is None
    assert result.error.type == "OpenError"


def test_a_history_under_another_customers_name_is_an_open_error(parties, restored):
    first, second = restored
    store(parties, first, parties.stored(second))
    assert parties.invoke(first).error.type == "OpenError"


@pytest.mark.parametrize("body", [b"", b'{"currency":"TWD"}', b"\xff\xfe"], ids=["empty", "plain", "binary"])
def test_an_object_that_is_no_sealed_value_is_an_open_error(parties, restored, body):
    customer, _ = restored
    store(parties, customer, body)
    assert parties.invoke(customer).error.type == "OpenError"


def test_a_customer_without_an_object_is_told_so(parties):
    error = parties.invoke("nobody").error
    assert error.type == "ConfigurationError"
    assert "no such object" in error.message
    assert "nobody" not in error.message


def test_a_history_that_cannot_be_scored_is_refused_by_name(parties, histories):
    history = next(iter(histories.values()))
    parties.upload([("too-short", replace(history, months=history.months[:2]))])
    error = parties.invoke("too-short").error
    assert error.type == "FunctionError"
    assert "HistoryLength" in error.message


def test_after_an_error_the_same_process_goes_on(parties, histories):
    parties.invoke("nobody")
    customer, history = next(iter(histories.items()))
    assert opened(parties, customer) == asdict(direct_forecast(history))


# --- what the cloud gets to see ---


def posted(runtime):
    return b"\n".join(
        part
        for post in runtime.posts
        for part in (post.body, *(f"{name}: {value}".encode() for name, value in post.headers.items()))
    )


def test_no_plaintext_is_in_the_objects_the_posts_the_logs_or_the_hosts_files(host, parties, histories):
    plain = set()
    for customer, history in histories.items():
        forecast = opened(parties, customer)
        amounts = [history.credit_limit, *(m.balance for m in history.months)]
        plain |= {str(amount) for amount in amounts if abs(amount) >= 10_000}
        plain |= {str(forecast["next_balance"]), str(forecast["probability_of_default"])}
        plain |= {reason["text"] for reason in forecast["reasons"]}
    assert len(plain) > 20
    objects = b"\n".join(parties.stored(customer) for customer in histories)
    files = b"\n".join(path.read_bytes() for path in host.directory.rglob("*") if path.is_file())
    seen = {
        "objects": objects,
        "posts": posted(parties.function),
        "logs": parties.function.logs.encode(),
        "files of the host": files,
    }
    for place, raw in seen.items():
        # Between other word characters it is a part of some ciphertext or identifier.
        found = [
            text for text in plain if re.search(rb"(?<![\w.-])%b(?![\w-])" % re.escape(text.encode()), raw)
        ]
        assert not found, place


def test_the_api_key_of_the_lambda_function_is_in_no_post_and_no_log(parties, histories):
    parties.invoke(next(iter(histories)))
    key = parties.tenant.key_file("forecast-lambda").read_text().strip()
    assert key.encode() not in posted(parties.function)
    assert key not in parties.function.logs


@pytest.mark.parametrize("how", ["plain", "nested", "exit"])
def test_what_a_handler_raises_reaches_no_post_and_no_log(parties, tmp_path, how):
    (tmp_path / "app.py").write_text(LEAKING)
    environment = parties.tenant.environment("forecast-lambda")
    with LambdaRuntime("app.handler", directory=tmp_path, environment=environment) as runtime:
        error = runtime.invoke({"ssn": "078-05-1120", "how": how}).error
        assert b"078-05-1120" not in posted(runtime)
        assert "078-05-1120" not in runtime.logs
    expected = {"plain": "ValueError", "nested": "RuntimeError", "exit": "SystemExit"}[how]
    assert error.type == "HandlerError"
    assert f"{expected} at app.py:" in error.message
    assert "handlers.py" in json.dumps(error.body["stackTrace"])
    assert "app.py" not in json.dumps(error.body["stackTrace"])
