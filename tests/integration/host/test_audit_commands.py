"""`cloister audit` against a real host, and somebody with a pen in its database."""

from __future__ import annotations

import json
import sqlite3
import time

import pytest
from typer.testing import CliRunner

from cloister._cli.root import build
from cloister.errors import ConfigurationError, DeniedError
from cloister_host.testing import embedded_host

REFUSED = 3


@pytest.fixture
def tampered(tmp_path):
    """A host of its own for tests that write in its database."""
    with embedded_host(tmp_path / "host") as host:
        yield host


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def host(request):
    return request.getfixturevalue("tampered" if "tampered" in request.fixturenames else "shared")


@pytest.fixture
def tenant(host):
    other, tenant = host.tenant(), host.tenant()
    other.admin.call("key.create", {"key": "k3", "purpose": "seal"})
    for number in range(5):
        tenant.admin.call("key.create", {"key": f"k{number}", "purpose": "seal"})
    sequenced(host)
    yield tenant
    other.admin.close()
    tenant.admin.close()


@pytest.fixture
def run(tenant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {**tenant.environment("admin"), "CLOISTER_HEAD_FILE": str(tmp_path / "heads.json")}

    def run(*arguments, status=0):
        done = CliRunner().invoke(build({}, {}), arguments, env=environment)
        assert done.exit_code == status, f"{done.output} {done.exception!r}"
        return done.stdout

    return run


def pen(host, statement, *parameters):
    connection = sqlite3.connect(host.directory / "state" / "cloister.db", timeout=30)
    with connection:
        rows = connection.execute(statement, parameters).fetchall()
    connection.close()
    return rows


def sequenced(host):
    end = time.monotonic() + 20
    while pen(host, "SELECT 1 FROM audit WHERE position IS NULL LIMIT 1"):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_log_of_an_honest_host_is_verified_online(run, host, tenant):
    first = json.loads(run("audit", "verify", "--json"))
    assert first["verdict"] == "verified"
    assert first["tenant"] == tenant.name
    assert first["entries"] == 5
    assert first["continues"] is None
    sequenced(host)
    second = json.loads(run("audit", "verify", "--json"))
    assert second["entries"] > first["entries"]
    assert first["head"]["size"] <= second["continues"]["size"] <= second["head"]["size"]
    assert any("witness" in line for line in second["not_checked"])
    assert "every one of the" in run("audit", "verify")


@pytest.mark.parametrize("format_", ["jsonl", "ocsf", "cef"])
def test_an_export_verifies_without_the_host(run, host, tenant, tmp_path, format_):
    run("audit", "export", "--format", format_, "--out", "log")
    found = json.loads(run("audit", "verify", "log", "--policy", str(host.policy), "--json"))
    assert (found["verdict"], found["tenant"]) == ("verified", tenant.name)
    assert not any("any is accepted" in line or "no policy" in line for line in found["not_checked"])
    events = (tmp_path / "log").read_text().splitlines()
    assert len(events) == found["entries"] + 2
    # Without a policy nobody knows whose log it is, and the answer says so.
    told = json.loads(run("audit", "verify", "log", "--json"))["not_checked"]
    assert any("any is accepted" in line for line in told)
    assert any("no policy" in line for line in told)
    edited = (tmp_path / "log").read_text().replace("key/k3", "key/k4")
    (tmp_path / "edited").write_text(edited)
    assert "refused" in run("audit", "verify", "edited", status=REFUSED)
    (tmp_path / "cut").write_text("".join(f"{event}\n" for event in events[:-2]))
    assert "refused" in run("audit", "verify", "cut", status=REFUSED)
    run("audit", "export", "--out", "log", status=1)


def test_a_policy_for_another_deployment_refuses_an_export(run, host, tmp_path):
    run("audit", "export", "--out", "log")
    policy = host.policy.read_text().replace(host.host.deployment, "A" * 43)
    (tmp_path / "other.toml").write_text(policy)
    assert "another deployment" in run("audit", "verify", "log", "--policy", "other.toml", status=REFUSED)


TAMPERINGS = {
    "an entry deleted": "DELETE FROM audit WHERE entry LIKE '%key/k3%'",
    "an entry left without its place": "UPDATE audit SET position = NULL WHERE entry LIKE '%key/k3%'",
}


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_what_was_done_to_the_database_is_found(run, tampered, statement):
    run("audit", "verify")
    sequenced(tampered)
    pen(tampered, statement)
    done = run_raw(run, "audit", "verify", "--json")
    assert "verified" not in done


def test_entries_in_another_order_are_found(run, tampered):
    [[one, first], [two, second]] = pen(
        tampered, "SELECT id, position FROM audit WHERE entry LIKE '%key/k2%' OR entry LIKE '%key/k4%'"
    )
    for entry_id, position in ((one, -1), (two, first), (one, second)):
        pen(tampered, "UPDATE audit SET position = ? WHERE id = ?", position, entry_id)
    assert "not the log that was signed" in run("audit", "verify", status=REFUSED)


def test_an_edited_entry_is_found(run, tampered):
    pen(tampered, "UPDATE audit SET entry = replace(entry, 'key/k3', 'key/k9') WHERE entry LIKE '%key/k3%'")
    assert "verified" not in run_raw(run, "audit", "verify", "--json")


def run_raw(run, *arguments):
    """Run a command that has to fail, whichever way it finds out."""
    for status in (REFUSED, 1):
        try:
            return run(*arguments, status=status)
        except AssertionError as error:
            failure = error
    raise failure


def test_one_entry_is_proven(run, host, tenant):
    entries = [json.loads(line) for line in run("audit", "list", "--limit", "1000").splitlines()]
    wanted = next(entry for entry in entries if entry["resource"] == "key/k3")
    document = json.loads(run("audit", "prove", wanted["id"]))
    assert json.loads(document["entry"]) == wanted
    with pytest.raises(ConfigurationError, match="no such entry"):
        tenant.admin.call("audit.prove", {"entry": "00"})


def test_only_its_own_tenant_is_shown_an_entry(host, tenant):
    [[entry_id], *_] = pen(
        host, "SELECT id FROM audit WHERE tenant <> ? AND entry LIKE '%key/k%'", tenant.name
    )
    with pytest.raises(ConfigurationError, match="no such entry"):
        tenant.admin.call("audit.prove", {"entry": entry_id})
    size = tenant.admin.call("audit.checkpoint", {})["size"]
    lines = tenant.admin.call("audit.export", {"size": size})["lines"].splitlines()
    entries = [json.loads(line) for line in lines[:-1]]
    assert {entry["entry"]["tenant"] for entry in entries} == {tenant.name}


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        ("audit.checkpoint", {}),
        ("audit.export", {"size": 1}),
        ("audit.consistency", {"first": 1, "second": 1}),
        ("audit.prove", {"entry": "00"}),
    ],
)
def test_the_log_is_read_only_by_whoever_may(tenant, op, payload):
    with tenant.client("nobody") as client, pytest.raises(DeniedError):
        client.call(op, payload)


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        ("audit.export", {"size": 10**9}),
        ("audit.export", {"size": 1, "start": 2}),
        ("audit.consistency", {"first": 2, "second": 1}),
        ("audit.consistency", {"first": 1, "second": 10**9}),
    ],
)
def test_sizes_that_the_log_does_not_have_are_refused(tenant, op, payload):
    with pytest.raises(ConfigurationError, match="not as large"):
        tenant.admin.call(op, payload)
