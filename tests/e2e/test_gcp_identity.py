"""A Cloud Run function signs in as its service account: no credential is stored, and nobody else gets in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import requests

from cloister.envelope import Sealed
from cloister_host.testing import embedded_host
from local_cloud.functions_framework_app import FunctionsFrameworkApp
from local_cloud.google_identity import GoogleIdentity
from local_cloud.process import clean_environment

FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-adult", output=boolean(), batch=True)
def is_adult(age: Annotated[list[int], sealed("ages", context=["person"])]) -> list[bool]:
    return [one >= 18 for one in age]
"""

MAIN = """
from cloister_gcp import Sealed, remote_function

is_adult = remote_function(
    "is-adult@prod", args={"age": Sealed, "person": str}, context=["person"], returns=bool
)
"""


class World:
    def __init__(self, host, tenant, google, folder):
        self.host = host
        self.tenant = tenant
        self.google = google
        self.folder = folder
        self.sealed: Sealed

    def environment(self, **changes):
        return {
            **self.google.environment,
            "CLOISTER_URL": self.host.url,
            "CLOISTER_TENANT": "acme",
            "CLOISTER_POLICY": str(self.host.policy),
            "CLOISTER_IDENTITY": "gcp",
            **changes,
        }

    def ask(self, **changes):
        """What the Cloud Run function answers to BigQuery."""
        body = {"requestId": "r", "caller": "c", "calls": [[str(self.sealed), "ann"]]}
        with FunctionsFrameworkApp(
            "is_adult", source=self.folder / "main.py", environment=self.environment(**changes)
        ) as app:
            answers = [requests.post(app.url, json={**body, "requestId": n}, timeout=60) for n in "ab"]
        return [(answer.status_code, answer.json()) for answer in answers]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host, GoogleIdentity() as google:
        tenant = host.tenant("acme")
        with tenant.admin as admin:
            admin.call("key.create", {"key": "ages", "purpose": "seal"})
            code = tmp_path_factory.mktemp("function")
            (code / "is_adult.py").write_text(FUNCTION)
            tenant.deploy(code)
            admin.call(
                "issuer.create", {"issuer": google.issuer, "jwks": google.jwks, "algorithms": ["RS256"]}
            )
            admin.call("principal.create", {"principal": "adults", "kind": "faas", "api_key": False})
            grant = {"principal": "adults", "action": "invoke", "resource": "function/is-adult"}
            admin.call("grant.create", grant)
            folder = tmp_path_factory.mktemp("app")
            (folder / "main.py").write_text(MAIN)
            found = World(host, tenant, google, folder)
            bind(found)
            with tenant.client("owner", [("seal", "key/ages")]) as owner:
                found.sealed = owner.seal(30, key="ages", context={"person": "ann"})
            yield found


def bind(world):
    """By the command line, as the documentation says."""
    google = world.google
    claims = [
        f"sub={google.subject}",
        f"email={google.account}",
        "email_verified:=true",
        "google|compute_engine|project_id=acme-prod",
        "google|compute_engine|project_number:=739419398126",
    ]
    command = [sys.executable, "-c", "from cloister._cli import main; main()", "principal", "bind", "adults"]
    options = [word for claim in claims for word in ("--claim", claim)]
    done = subprocess.run(
        [*command, "--issuer", google.issuer, *options],
        env=clean_environment(world.tenant.environment("admin")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_service_account_is_who_the_host_knows_and_its_token_serves_more_than_once(world):
    world.google.issued.clear()
    assert world.ask() == [(200, {"replies": [True]})] * 2
    assert len(world.google.issued) == 1
    assert world.google.issued[0].startswith("cloister:")


def test_an_api_key_in_secret_manager_signs_in_too(world):
    world.tenant.principal("by-key", [("invoke", "function/is-adult")], kind="faas")
    name = "projects/acme-prod/secrets/by-key"
    world.google.secrets[name] = world.tenant.key_file("by-key").read_text()
    answers = world.ask(CLOISTER_IDENTITY="key", CLOISTER_API_KEY_SECRET=name)
    assert answers[0] == (200, {"replies": [True]})


@pytest.mark.parametrize("changed", ["subject", "account", "project", "machine"])
def test_a_token_that_differs_in_one_claim_is_refused(world, monkeypatch, changed):
    google = world.google
    if changed == "subject":
        monkeypatch.setattr(google, "subject", "2")
    elif changed == "account":
        monkeypatch.setattr(google, "account", "another@acme-prod.iam.gserviceaccount.com")
    elif changed == "project":
        monkeypatch.setattr(google, "machine", {**google.machine, "project_id": "evil-prod"})
    else:
        monkeypatch.setattr(google, "machine", {})
    status, answer = world.ask()[0]
    assert status == 400
    assert answer["errorMessage"].startswith("identity:")
    assert "another@" not in json.dumps(answer)


def test_a_token_of_another_issuers_key_is_refused(world):
    with GoogleIdentity() as other:
        status, answer = world.ask(**other.environment)[0]
    assert (status, answer["errorMessage"].partition(":")[0]) == (400, "identity")
