"""What importing each package loads, and what it must never load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROGRAM = "import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"


def loaded(statement: str) -> set[str]:
    """Modules that a statement loads, beyond what starting Python loads here."""
    return _loaded(statement) - _loaded("pass")


@cache
def _loaded(statement: str) -> set[str]:
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement=statement)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return set(json.loads(output))


def roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_importing_cloister_loads_next_to_nothing():
    modules = loaded("import cloister")
    assert {m for m in modules if m.startswith("cloister")} == {"cloister"}
    assert not roots(modules) & {"cryptography", "requests", "httpx", "ssl", "asyncio"}


def test_the_client_loads_no_http_library_and_no_cli():
    modules = loaded("from cloister import Client")
    assert not roots(modules) & {
        "requests",
        "httpx",
        "urllib3",
        "typer",
        "rich",
        "uvicorn",
        "msgspec",
        "cbor2",
    }
    assert not roots(modules) & {"cloister_host", "cloister_aws", "cloister_gcp", "cloister_azure"}


READY = (
    "from cloister.client import Client; from cloister.identity import ApiKey; "
    "from cloister.attestation import AppraisalPolicy; from cloister.transport.stdlib import HttpTransport; "
    "p = AppraisalPolicy.from_mapping({'version': 1, 'environment': 'simulated', "
    "'tee': {'simulated': {'reference': [{'name': 'x', 'measurement': 'x'}]}}}); "
    "Client(tenant='t', policy=p, identity=ApiKey('clk_a_b'), transport=HttpTransport('http://localhost'))"
)
"""What `benchmarks/imports.py` times as `client ready to send`."""

READY_PARTS = {
    *("_host", "attestation", "client", "envelope", "errors", "head_file", "identity", "jose"),
    *("operations", "protocol", "receipts", "reply", "secret", "telemetry", "transport"),
}
"""Each costs every cold start some milliseconds: what joins them has to be worth it."""


def test_a_client_that_is_ready_to_send_has_loaded_its_own_parts_and_no_more():
    modules = loaded(READY)
    parts = {module.split(".")[1] for module in modules if module.startswith("cloister.")}
    assert parts == READY_PARTS
    assert {m for m in modules if m.startswith("cloister.attestation.formats")} == set()
    outside = {root for root in roots(modules) - set(sys.stdlib_module_names) if not root.startswith("_")}
    assert outside == {"cloister", "cryptography", "rfc8785"}
    assert not roots(modules) & {"asyncio", "tomllib", "sqlite3", "xml", "unittest", "logging"}


def test_the_benchmark_times_what_this_test_looks_at():
    text = (Path(__file__).parents[2] / "benchmarks" / "imports.py").read_text()
    assert ast.literal_eval(text.split("READY = ")[1].split("\n)\n")[0] + "\n)") == READY


def test_the_pure_parts_load_neither_client_nor_sockets():
    pure = ("errors", "secret", "jose", "protocol", "envelope", "attestation", "receipts")
    modules = loaded("; ".join(f"import cloister.{name}" for name in pure))
    assert "cloister.client" not in modules
    assert not {"ssl", "socket", "http.client"} & modules


def test_the_host_never_loads_the_client():
    modules = loaded("import cloister_host.app")
    assert not {m for m in modules if m in {"cloister.client", "cloister.aio", "cloister.config"}}
    assert not {m for m in modules if m.startswith("cloister.transport")}


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_an_adapter_loads_no_other_cloud_and_no_host(cloud):
    others = {"cloister_aws", "cloister_gcp", "cloister_azure", "cloister_host"} - {f"cloister_{cloud}"}
    sdks = {"aws": {"google", "azure"}, "gcp": {"boto3", "azure"}, "azure": {"boto3", "google"}}
    assert not roots(loaded(f"import cloister_{cloud}")) & (others | sdks[cloud])


def test_the_spark_adapter_loads_no_spark_no_cloud_and_no_host():
    others = {"cloister_aws", "cloister_gcp", "cloister_azure", "cloister_host"}
    modules = roots(loaded("import cloister_spark"))
    assert "cloister_spark" in modules
    assert not modules & (others | {"pyspark", "boto3", "google", "azure", "requests"})


def test_the_lambda_adapter_does_not_load_boto3_until_it_is_used():
    assert "boto3" not in roots(loaded("import cloister_aws"))
