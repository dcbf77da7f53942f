"""Two people and an approval, as they type it; and what a client and a platform see of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.errors import QuorumNeededError, error_from_code
from cloister.faas import data_free
from cloister_gcp.remote import _refusal
from cloister_host.embedded import embedded_host
from cloister_host.http.problems import problem

CLOISTER = str(Path(sys.executable).with_name("cloister"))


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant()
        for name in ("ann", "bob"):
            tenant.principal(name, [("approve", "act/*")], kind="person")
        yield tenant
        tenant.admin.close()


@pytest.fixture
def run(tenant, tmp_path):
    def run(principal, *arguments):
        environment = {"PATH": os.environ["PATH"], **tenant.environment(principal)}
        return subprocess.run(
            [CLOISTER, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_an_act_is_proposed_approved_and_done(tenant, run):
    done = run("admin", "quorum", "set", "policy.change", "--approvals", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(run("ann", "quorum", "show").stdout) == {
        "act": "policy.change",
        "approvals": 1,
        "lifetime_seconds": 86400,
    }
    grant = ("grant", "add", "bob", "seal", "key/ssn")
    refused = run("admin", *grant)
    assert refused.returncode == 1
    assert "error [quorum-needed]" in refused.stderr
    [waiting] = [json.loads(line) for line in run("ann", "proposal", "list").stdout.splitlines()]
    assert f"cloister proposal approve {waiting['proposal']}" in refused.stderr
    assert waiting["detail"] == {"principal": "bob", "action": "seal", "on": "key/ssn"}
    assert json.loads(run("ann", "proposal", "show", waiting["proposal"]).stdout)["state"] == "waiting"
    assert json.loads(run("ann", "proposal", "approve", waiting["proposal"]).stdout)["state"] == "approved"
    done = run("admin", *grant)
    assert done.returncode == 0, done.stderr
    payload = {"principal": "bob", "action": "wrap", "resource": "key/ssn"}
    with pytest.raises(QuorumNeededError) as caught:
        tenant.admin.call("grant.create", payload)
    assert json.loads(run("ann", "proposal", "reject", caught.value.proposal_id).stdout)["missing"] == 0


def test_the_same_request_under_the_same_idempotency_key_runs_after_approval(tenant, run):
    payload = {"principal": "bob", "action": "unwrap", "resource": "key/ssn"}
    with pytest.raises(QuorumNeededError) as caught:
        tenant.admin.call("grant.create", payload, idempotency_key="once")
    assert run("ann", "proposal", "approve", caught.value.proposal_id).returncode == 0
    for _ in range(2):
        assert tenant.admin.call("grant.create", payload, idempotency_key="once")["action"] == "unwrap"


def test_platforms_are_told_of_the_proposal_and_not_to_retry(tenant):
    with pytest.raises(QuorumNeededError) as caught:
        tenant.admin.call("grant.create", {"principal": "bob", "action": "decrypt", "resource": "*"})
    kept = data_free(caught.value)
    assert isinstance(kept, QuorumNeededError)
    assert kept.proposal_id == caught.value.proposal_id
    # Lambda posts the message, BigQuery shows it; neither is asked to try again by itself.
    assert kept.proposal_id in str(kept)
    document, status, _headers = _refusal(kept)
    assert status == 400
    assert kept.proposal_id in document
    assert problem(kept).status_code == 403


def test_the_proposal_travels_in_the_sealed_error_only_for_this_code():
    assert error_from_code("quorum-needed", "wait", proposal_id="p").proposal_id == "p"
    assert not hasattr(error_from_code("denied", "no", proposal_id="p"), "proposal_id")
