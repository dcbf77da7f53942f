"""The page on Azure as written, the quick start on Microsoft's runtime."""

from __future__ import annotations

import re

import pytest
import requests

from cloister.envelope import seal_to
from cloister.jose import generate_key
from cloister_azure.storage import forget_clients
from cloister_host.embedded import embedded_host
from local_cloud.azure_functions import AzureFunctions
from local_cloud.azurite import Azurite
from local_cloud.ca import LocalCA
from support import require
from support.documents import DOCS, run_command

PAGE = (DOCS / "azure.md").read_text()
QUICK_START = PAGE.split("## Quick start")[1].split("\n## ")[0]
FILE = re.compile(r"`([\w/]+\.py)`.*:\n\n```python\n((?:.|\n)*?)```")
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SETTINGS = re.compile(r"```ini\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The quick start's folder, after its commands."""
    require.azure_runtime()
    folder = tmp_path_factory.mktemp("quick")
    files = dict(FILE.findall(QUICK_START))
    assert set(files) == {"function/overdrawn.py", "function_app.py"}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        for commands in SHELL.findall(QUICK_START):
            run_command(commands, folder, settings)
        yield folder
    finally:
        run_command("cloister host stop", folder, settings)


@pytest.fixture(scope="module")
def app(folder):
    settings = dict(line.split("=", 1) for line in SETTINGS.search(QUICK_START)[1].split())
    with (
        LocalCA() as ca,
        AzureFunctions(folder, ca=ca, environment=settings, python=require.azure_runtime()) as app,
        requests.Session() as session,
    ):
        session.trust_env = False  # REQUESTS_CA_BUNDLE would replace the authority

        def post(customer):
            sealed = (folder / "history.jwe").read_text().strip()
            return session.post(
                f"{app.url}/api/overdrawn",
                json={"customer": customer, "history": sealed},
                headers={"x-functions-key": app.function_key},
                verify=str(ca.pem_path),
                timeout=120,
            )

        yield app, post


def test_the_quick_start_of_azure_ends_in_its_result_on_the_real_runtime(app):
    _, post = app
    answer = post("17")
    assert answer.status_code == 200, answer.text
    assert answer.json()["value"] is True
    assert set(answer.json()) == {"value", "receipt"}


def test_under_another_customer_it_does_not_open_and_nothing_is_told(app):
    running, post = app
    answer = post("18")
    assert answer.status_code == 500
    assert "OpenError" in running.reports[-1].message
    assert "-95" not in answer.text + running.logs + running.reports[-1].message + running.reports[-1].stack


def test_the_host_is_told_of_a_managed_identity_as_written(tmp_path):
    commands = SHELL.search(PAGE.split("## Who the function is")[1])[1]
    folder = tmp_path / "work"
    folder.mkdir()
    entra = {
        "ENTRA_TENANT": "2f1a6a4e-8a53-4e9d-a6a5-0d5c4f0e3b11",
        "OBJECT_ID": "7c3c2b50-2b4f-4b58-9f5e-4fb3e2e0b9aa",
        "SUBSCRIPTION": "5b4b650e-28b9-4790-b3ab-ddbd88d727c4",
    }
    with embedded_host(tmp_path) as host:
        tenant = host.tenant()
        run_command(commands, folder, {**tenant.environment("admin"), **entra})
        (issuer,) = tenant.admin.call("issuer.list", {})["issuers"]
        (binding,) = tenant.admin.call("principal.bindings", {"principal": "forecast"})["bindings"]
        tenant.admin.close()
        assert issuer["audience"] == f"api://{entra['ENTRA_TENANT']}/{host.host.deployment}"
    assert issuer["max_lifetime_seconds"] == 90_000
    assert binding["claims"]["sub"] == binding["claims"]["oid"] == entra["OBJECT_ID"]
    assert entra["SUBSCRIPTION"] in binding["claims"]["xms_mirid"]


PIECES = """
from __future__ import annotations
from dataclasses import dataclass
import azure.functions as func
from cloister.mask import MASKED, PLAIN
from cloister_azure import BlobOnce, Delivery, from_enclave, mask_fields, seal_fields
app = func.FunctionApp()

@dataclass
class PinToken:
    account: str
    token: str
"""


def test_the_pieces_of_code_on_the_page_are_functions_that_azure_can_index(tmp_path):
    pieces = PYTHON.findall(PAGE.split("## Fields")[1].split("## Blob Storage")[0])
    (tmp_path / "function_app.py").write_text(PIECES + "".join(pieces))
    with LocalCA() as ca, AzureFunctions(tmp_path, ca=ca, python=require.azure_runtime()) as app:
        names = sorted(function["name"] for function in app._worker.functions)
    assert names == ["customers", "receive"]


def test_sealed_values_are_stored_and_read_as_written(monkeypatch):
    require.azurite()
    sealed, newer = (seal_to(text, generate_key("HPKE-7-KE").public(), kid="histories.1") for text in "12")
    scope = {"sealed": sealed, "newer": newer}
    with Azurite() as storage, storage.client() as service:
        service.create_container("histories")
        monkeypatch.setenv("AzureWebJobsStorage", storage.connection_string)
        exec(PYTHON.search(PAGE.split("## Blob Storage")[1])[1], scope)
        forget_clients()
    assert scope["history"] == newer
