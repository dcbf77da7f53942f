"""Spans, metrics and logs by the real OpenTelemetry SDK and Powertools, against a real host: no data."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cloister.aio import AsyncClient
from cloister.errors import DeniedError, OpenError
from cloister.faas import scrubbed
from cloister.logs import JsonFormatter, error_fields
from cloister.telemetry import operation
from cloister_aws import confidential
from cloister_gcp import Sealed, remote_function
from cloister_host.testing import embedded_host
from local_cloud.process import clean_environment
from support.aws_events import LambdaContext, event

PAGE = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
PIECES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SECRET = "078-05-1120 is the plaintext"
TENANT = "a-tenant-of-its-own"
FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-long", output=boolean(), batch=True)
def is_long(text: Annotated[list[str], sealed("ssns", context=["member"])]) -> list[bool]:
    return [len(one) > 3 for one in text]
"""


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant(TENANT)
        with tenant.admin as admin:
            admin.call("key.create", {"key": "ssns", "purpose": "seal"})
            folder = tmp_path_factory.mktemp("function")
            (folder / "is_long.py").write_text(FUNCTION)
            tenant.deploy(folder)
            grants = [("seal", "key/ssns"), ("decrypt", "key/ssns"), ("invoke", "function/is-long")]
            tenant.principal("app", grants)
            yield tenant


@pytest.fixture
def client(tenant):
    with tenant.host.client(TENANT, tenant.key_file("app")) as client:
        yield client


class Seen:
    """Everything that OpenTelemetry was told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def names(self):
        return [span.name for span in self.spans]

    def points(self):
        data = json.loads(self.reader.get_metrics_data().to_json())
        return [
            (metric["name"], metric["unit"], point["attributes"])
            for resource in data["resource_metrics"]
            for scope in resource["scope_metrics"]
            for metric in scope["metrics"]
            for point in metric["data"]["data_points"]
        ]

    def everything(self):
        return "".join(span.to_json() for span in self.spans) + json.dumps(self.points())


@pytest.fixture
def seen(monkeypatch):
    """Providers of this test alone: the ones of a process can be set only once."""
    seen = Seen()
    monkeypatch.setattr(trace, "get_tracer", seen.traces.get_tracer)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: seen.meters)
    yield seen
    seen.traces.shutdown()
    seen.meters.shutdown()


def no_data(seen, tenant, *more):
    told = seen.everything()
    key = tenant.key_file("app").read_text().strip()
    for secret in (SECRET, "078-05", key, key[:12], TENANT, "member", *more):
        assert secret not in told


def test_each_operation_is_a_span_and_a_measurement(client, seen, tenant):
    sealed = client.seal(SECRET, key="ssns", context={"member": "17"})
    client.seal(SECRET, key="ssns", context={"member": "17"})
    assert client.open(sealed, context={"member": "17"}) == SECRET
    assert seen.names == ["cloister attest", "cloister key.data_key", "cloister value.open"]
    assert {span.attributes["cloister.outcome"] for span in seen.spans} == {"ok"}
    assert {
        ("cloister.operation.duration", "s", operation)
        for operation in ("attest", "key.data_key", "value.open")
    } == {(name, unit, attributes["cloister.operation"]) for name, unit, attributes in seen.points()}
    no_data(seen, tenant, str(sealed), str(sealed)[-40:])


def test_an_error_is_its_code_and_no_more(client, seen, tenant):
    sealed = client.seal(SECRET, key="ssns", context={"member": "17"})
    with pytest.raises(OpenError):
        client.open(sealed, context={"member": "18"})
    with pytest.raises(DeniedError):
        client.call("secret.put", {"secret": "x", "value": SECRET}, purpose=SECRET)
    last = seen.spans[-1]
    assert (last.name, last.attributes["error.type"]) == ("cloister secret.put", "denied")
    assert last.status.status_code is trace.StatusCode.ERROR
    assert (last.status.description, last.events) == (None, ())
    no_data(seen, tenant, str(sealed))


def test_an_operation_that_nobody_knows_is_not_named(client, seen):
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever the host says to it)
        client.call(SECRET, {})
    assert seen.names[-1] == "cloister other"
    assert SECRET not in seen.everything()


def test_the_asynchronous_client_tells_the_same(seen, tenant):
    import asyncio

    async def run():
        settings = {"url": tenant.host.url, "tenant": TENANT, "policy": str(tenant.host.policy)}
        async with AsyncClient.from_env(**settings, api_key_file=str(tenant.key_file("app"))) as client:
            await client.seal(SECRET, key="ssns")

    asyncio.run(run())
    assert seen.names == ["cloister attest", "cloister key.data_key"]
    no_data(seen, tenant)


def test_what_a_handler_calls_is_its_child(client, seen, tenant):
    @confidential("is-long@prod", client=client)
    def handler(given, context, *, enclave):
        return enclave.batch(text=[given["text"]], context={"member": ["17"]}).values

    sealed = client.seal(SECRET, key="ssns", context={"member": "17"})
    seen.exporter.clear()
    assert handler({"text": str(sealed)}, LambdaContext()) == [True]
    with pytest.raises(Exception, match="KeyError"):
        handler({"other": SECRET}, LambdaContext())
    call, handled, failed = seen.spans
    assert (call.name, handled.name) == ("cloister function.invoke", "cloister lambda_handler")
    assert call.parent.span_id == handled.context.span_id
    assert handled.attributes["cloister.source"] == "direct"
    assert failed.attributes["error.type"] == "handler"
    no_data(seen, tenant, str(sealed), "is-long")


def test_a_request_of_bigquery_is_a_span_with_its_rows(client, seen, tenant):
    endpoint = remote_function(
        "is-long@prod", args={"text": Sealed, "member": str}, context=["member"], returns=bool, client=client
    )
    sealed = str(client.seal(SECRET, key="ssns", context={"member": "17"}))
    for member, status in ("17", 200), ("18", 400):
        body = {"requestId": member, "calls": [[sealed, member]]}
        request = type("Request", (), {"stream": io.BytesIO(json.dumps(body).encode())})
        assert endpoint(request)[1] == status
    good, bad = (span for span in seen.spans if span.name == "cloister remote_function")
    assert (good.attributes["cloister.outcome"], bad.attributes["error.type"]) == ("ok", "function")
    no_data(seen, tenant, sealed)


def test_without_opentelemetry_nothing_is_loaded():
    program = (
        "import sys; from cloister.telemetry import operation\n"
        "with operation('x', current=True): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_an_error_of_anybody_is_its_type(seen):
    with pytest.raises(ValueError, match="078"), operation("x"):
        raise ValueError(SECRET)
    (span,) = seen.spans
    assert span.attributes["error.type"] == "ValueError"
    assert SECRET not in seen.everything()


# --- logs ---


@pytest.fixture
def lines():
    """What `JsonFormatter` writes of the loggers of Cloister."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(service="payments"))
    logger = logging.getLogger("cloister")
    logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def test_a_record_has_powertools_keys_and_no_data(client, lines, monkeypatch):
    for name in ("AWS_LAMBDA_FUNCTION_NAME", "FUNCTION_TARGET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("K_SERVICE", "ssn-listed")
    endpoint = remote_function(
        "is-long@prod",
        args={"text": Sealed, "member": str},
        context=["member"],
        returns=bool,
        on_row_error="null",
        client=client,
    )
    body = {"requestId": "1", "calls": [[SECRET, "17"]]}
    endpoint(type("Request", (), {"stream": io.BytesIO(json.dumps(body).encode())}))
    endpoint(type("Request", (), {"stream": io.BytesIO(b"{")}))
    null, refused = lines()
    assert null["message"] == "rows failed and answered NULL: malformed: 1"
    assert (null["rows"], null["rows_failed"]) == (1, 1)
    assert (refused["level"], refused["error_code"], refused["retryable"]) == (
        "ERROR",
        "configuration",
        False,
    )
    for line in (null, refused):
        assert (line["service"], line["function_name"]) == ("payments", "ssn-listed")
        assert {"timestamp", "location", "level"} <= line.keys()
        assert SECRET not in json.dumps(line)


def test_a_traceback_is_the_type_of_its_exception_alone(lines):
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("cloister.x").exception("failed", extra={"object": object()})
    (line,) = lines()
    assert line["exception_name"] == "ValueError"
    assert line["object"] == "object"
    assert SECRET not in json.dumps(line)


def test_fields_of_an_error_hold_what_finds_it_in_the_hosts_log():
    error = DeniedError("no grant", correlation_id="c-1")
    assert error_fields(error) == {"error_code": "denied", "retryable": False, "correlation_id": "c-1"}
    assert error_fields(ValueError(SECRET)) == {"error_code": "ValueError"}
    assert callable(scrubbed)


def test_powertools_writes_the_fields_of_a_failed_record():
    from aws_lambda_powertools import Logger

    stream = io.StringIO()
    scope: dict = {}
    exec(
        PIECES[2].replace('service="payments"', 'service="payments", stream=STREAM'),
        {"STREAM": stream},
        scope,
    )
    assert isinstance(scope["logger"], Logger)

    @confidential("f@prod", per="record", client=object())
    def handler(record, context, *, enclave):
        raise ValueError(record["body"])

    try:
        handler(event("powertools_sqsEvent"), LambdaContext())
    finally:
        logger = logging.getLogger("cloister")
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    line = json.loads(stream.getvalue().splitlines()[-1])
    assert (line["service"], line["event_source"], line["error_code"]) == ("payments", "sqs", "handler")
    assert "Message" not in line["message"]


# --- the page ---


def test_the_example_of_spans_prints_what_the_page_says(tenant):
    done = subprocess.run(
        [sys.executable, "-c", PIECES[0]],
        env=clean_environment(tenant.environment("app")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r'"name": "(cloister [^"]*)"', done.stdout) == [
        "cloister attest",
        "cloister key.data_key",
    ]
    assert "078-05-1120" not in done.stdout


def test_the_example_of_logs_can_be_written_so():
    logger = logging.getLogger("cloister")
    before = list(logger.handlers)
    exec(PIECES[1], {})
    (added,) = [handler for handler in logger.handlers if handler not in before]
    logger.removeHandler(added)
    assert isinstance(added.formatter, JsonFormatter)
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    assert {"level", "message", "service", "function_name", "rows", "rows_failed"} <= example.keys()
