"""The deploy gate and the doctor, against a real host, as a pipeline and a person run them."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from cloister import jose
from cloister._cli import attest as attest_command
from cloister._cli import doctor as doctor_command
from cloister._cli.root import build
from cloister.attestation.formats import simulated
from cloister_host.embedded import embedded_host
from support.https import https_server

ACCEPTED, UNUSABLE, REFUSED = 0, 2, 3


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def run(host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("TENANT", "API_KEY_FILE", "IDENTITY"):
        monkeypatch.delenv(f"CLOISTER_{name}", raising=False)
    monkeypatch.setenv("CLOISTER_URL", host.url)
    monkeypatch.setenv("CLOISTER_POLICY", str(host.policy))

    def run(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(build({}, {}), arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


@pytest.fixture
def strict(host, tmp_path):
    """A policy that accepts another image only."""
    text = host.policy.read_text()
    path = tmp_path / "strict.toml"
    path.write_text(text.replace('measurement" = "sha256:', 'measurement" = "sha256:00'))
    assert path.read_text() != text
    return path


# --- the gate ------------------------------------------------------------------------------------


def test_an_accepted_host_opens_the_gate_and_no_credential_is_needed(run, host):
    code, result = run("attest", "--json")
    assert code == ACCEPTED
    assert result["verdict"] == "accepted"
    assert result["deployment"] == host.host.deployment
    assert result["environment"] == "simulated"
    assert result["keyset"] == host.host.keysets.keyset().digest
    assert {"checks", "not_checked", "configuration", "holders", "expires", "appraised_at"} <= result.keys()
    assert run("attest")[1].startswith("accepted: ")


def test_a_refused_host_closes_it_and_says_what_to_do(run, strict, monkeypatch):
    monkeypatch.setenv("CLOISTER_POLICY", str(strict))
    code, result = run("attest", "--json")
    assert (code, result["verdict"]) == (REFUSED, "refused")
    assert "measurement" in result["reason"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOISTER_URL", "http://127.0.0.1:9"),
        ("CLOISTER_URL", "http://not-loopback.example"),
        ("CLOISTER_POLICY", "missing.toml"),
        ("CLOISTER_TIMEOUT_SECONDS", "soon"),
    ],
)
def test_what_cannot_be_used_is_no_refusal(run, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, result = run("attest", "--json")
    assert (code, result["verdict"]) == (UNUSABLE, "unusable")


def test_a_saved_statement_needs_no_route_to_the_host(run, monkeypatch):
    assert run("attest", "--save", "host.json")[0] == ACCEPTED
    monkeypatch.delenv("CLOISTER_URL")
    code, result = run("attest", "--statement", "host.json", "--json")
    assert code == ACCEPTED
    assert any(line.startswith("freshness") for line in result["not_checked"])


def test_a_stapled_document_is_a_statement_too(run, host):
    Path("staple.json").write_text(json.dumps(host.host.keysets.staple().to_json()))
    assert run("attest", "--statement", "staple.json", "--json")[0] == ACCEPTED


def change(path: Path, edit: Any) -> None:
    members = json.loads(path.read_text())
    edit(members)
    path.write_text(json.dumps(members))


def test_a_saved_statement_that_was_altered_is_refused(run):
    def forge(members: dict[str, Any]) -> None:
        evidence = jose.b64url_decode(members["document"]["evidence"])
        members["document"]["evidence"] = jose.b64url_encode(evidence[:-1] + b"}")
        members["document"]["evidence"] = jose.b64url_encode(evidence.replace(b"sha256:", b"sha256;", 1))

    for edit in (forge, lambda members: members.update(nonce=jose.b64url_encode(bytes(32)))):
        run("attest", "--save", "host.json")
        change(Path("host.json"), edit)
        assert run("attest", "--statement", "host.json", "--json")[0] == REFUSED


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"v": 2, "nonce": "AA", "document": {}}', "\x00"])
def test_something_else_is_no_statement(run, content):
    Path("host.json").write_text(content)
    assert run("attest", "--statement", "host.json", "--json")[0] == UNUSABLE


def test_a_statement_of_yesterday_is_refused(run, monkeypatch):
    run("attest", "--save", "host.json")
    later = SimpleNamespace(time=lambda: time.time() + 2 * 86_400)
    monkeypatch.setattr(attest_command, "time", later)
    code, result = run("attest", "--statement", "host.json", "--json")
    assert code == REFUSED
    assert "not valid at this time" in result["reason"]


# --- the doctor ----------------------------------------------------------------------------------


@pytest.fixture
def patient(run, host, monkeypatch):
    """A caller with everything in order, who is then made ill."""
    tenant = host.tenant()
    tenant.admin.call("key.create", {"key": "ssn", "purpose": "seal"})
    tenant.principal("app", [("seal", "key/ssn")])
    for name, value in tenant.environment("app").items():
        monkeypatch.setenv(name, value)
    yield SimpleNamespace(run=run, tenant=tenant)
    tenant.admin.close()


def examine(patient) -> tuple[int, dict[str, dict[str, str]]]:
    code, result = patient.run("doctor", "--json")
    assert result["healthy"] is (code == 0)
    return code, {step["step"]: step for step in result["steps"]}


ORDER = ["settings", "url", "tls", "clock", "evidence", "policy", "identity", "grants"]


def test_a_healthy_caller_is_told_so_step_by_step(patient):
    code, steps = examine(patient)
    assert code == 0
    assert list(steps) == ORDER
    assert {step["status"] for step in steps.values()} <= {"ok", "warning"}
    assert "service app" in steps["identity"]["detail"]
    assert steps["grants"]["detail"] == "seal on key/ssn"
    assert "ok" in patient.run("doctor")[1]


def fails_at(patient, step: str) -> dict[str, str]:
    """The first failed step is this one, with a way out; those before it are well, the rest skipped."""
    code, steps = examine(patient)
    assert code == REFUSED
    assert steps[step]["status"] == "failed", steps
    assert steps[step]["hint"]
    before, after = ORDER[: ORDER.index(step)], ORDER[ORDER.index(step) + 1 :]
    assert all(steps[name]["status"] in {"ok", "warning"} for name in before)
    assert all(steps[name]["status"] == "skipped" for name in after)
    return steps[step]


def test_a_missing_setting_is_found_first(patient, monkeypatch):
    monkeypatch.delenv("CLOISTER_TENANT")
    assert "CLOISTER_TENANT" in fails_at(patient, "settings")["detail"]


def test_a_host_that_is_not_there_is_found(patient, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CLOISTER_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert "nothing answers" in fails_at(patient, "url")["detail"]


def test_a_name_that_does_not_resolve_is_found(patient, monkeypatch):
    monkeypatch.setenv("CLOISTER_URL", "https://no-such-host.invalid")
    assert "resolve" in fails_at(patient, "url")["detail"]


def test_a_certificate_nobody_trusts_is_found(patient, monkeypatch):
    with https_server("localhost") as server:
        monkeypatch.setenv("CLOISTER_URL", f"https://localhost:{server.port}")
        assert "certificate is refused" in fails_at(patient, "tls")["detail"]


def test_a_wrong_clock_is_found_before_the_evidence_is_blamed(patient, monkeypatch):
    for far, word in ((2 * 86_400, "ahead"), (-3600, "behind")):
        clock = SimpleNamespace(time=lambda far=far: time.time() + far)
        monkeypatch.setattr(doctor_command, "time", clock)
        assert word in fails_at(patient, "clock")["detail"]


def test_evidence_that_is_not_genuine_is_found(patient, host, monkeypatch):
    forged = simulated.sign(measurement="x", statement=b"{}", nonce=b"n", issued_at=int(time.time()))
    monkeypatch.setattr(type(host.host.keysets._attester), "evidence", lambda *_, **__: forged)
    assert "statement" in fails_at(patient, "evidence")["detail"]


def test_a_policy_for_another_image_is_found(patient, strict, monkeypatch):
    monkeypatch.setenv("CLOISTER_POLICY", str(strict))
    assert "measurement" in fails_at(patient, "policy")["detail"]


def test_a_wrong_key_is_found(patient, tmp_path, monkeypatch):
    key = tmp_path / "wrong.key"
    key.write_text("clk_" + "A" * 43)
    monkeypatch.setenv("CLOISTER_API_KEY_FILE", str(key))
    code, steps = examine(patient)
    assert code == REFUSED
    assert steps["identity"]["status"] == "failed"
    assert steps["policy"]["status"] in {"ok", "warning"}


def test_a_principal_without_grants_is_told_so(patient, monkeypatch):
    patient.tenant.principal("idle")
    monkeypatch.setenv("CLOISTER_API_KEY_FILE", str(patient.tenant.key_file("idle")))
    code, steps = examine(patient)
    assert code == 0
    assert steps["grants"]["status"] == "warning"


def test_what_the_doctor_says_shows_no_key(patient):
    key = patient.tenant.key_file("app").read_text().strip()
    assert key not in json.dumps(examine(patient)[1])
