"""The administration commands against a real host, as a person types them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from cloister_host.embedded import embedded_host

CLOISTER = str(Path(sys.executable).with_name("cloister"))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def run(host, tmp_path):
    tenant = host.tenant()
    tenant.admin.close()
    settings = {"PATH": os.environ["PATH"], **tenant.environment("admin")}

    def run(*arguments, stdin="", key_file=None):
        environment = {**settings, **({"CLOISTER_API_KEY_FILE": str(key_file)} if key_file else {})}
        return subprocess.run(
            [CLOISTER, *arguments],
            cwd=tmp_path,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def documents(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_key_is_made_rotated_and_listed(run):
    assert json.loads(run("key", "create", "ssn").stdout)["kid"] == "ssn.1"
    assert json.loads(run("key", "rotate", "ssn").stdout)["kid"] == "ssn.2"
    assert [key["key"] for key in documents(run("key", "list"))] == ["ssn"]


def test_a_principal_gets_a_key_file_that_only_its_owner_reads(run, tmp_path):
    run("key", "create", "ssn")
    done = run("principal", "create", "app", "--out", "app.key")
    assert done.returncode == 0, done.stderr
    key_file = tmp_path / "app.key"
    assert key_file.stat().st_mode & 0o077 == 0
    assert key_file.read_text().strip() not in done.stdout
    for action in ("seal", "decrypt"):
        assert run("grant", "add", "app", action, "key/ssn").returncode == 0
    sealed = run("seal", "--key", "ssn", "-c", "member=1", stdin="078-05-1120\n", key_file=key_file)
    opened = run("open", "-c", "member=1", stdin=sealed.stdout, key_file=key_file)
    assert opened.stdout == "078-05-1120\n"
    assert run("grant", "remove", "app", "decrypt", "key/ssn").returncode == 0
    assert run("open", "-c", "member=1", stdin=sealed.stdout, key_file=key_file).returncode == 1


def test_a_key_file_is_never_overwritten(run, tmp_path):
    (tmp_path / "app.key").write_text("precious")
    done = run("principal", "create", "app", "--out", "app.key")
    assert done.returncode == 1
    assert (tmp_path / "app.key").read_text() == "precious"
    names = {principal["principal"] for principal in documents(run("principal", "list"))}
    assert names == {"admin"}


def test_secrets_and_token_policies(run):
    done = run("secret", "put", "partner", stdin="hunter2\n")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr
    assert [secret["secret"] for secret in documents(run("secret", "list"))] == ["partner"]
    assert run("token-policy", "create", "pins").returncode == 0
    assert [policy["policy"] for policy in documents(run("token-policy", "list"))] == ["pins"]


def test_attest_says_what_was_checked_and_what_not(run):
    shown = json.loads(run("attest", "--json").stdout)
    assert shown["environment"] == "simulated"
    assert "keyset signature" in shown["checks"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("key", "create", "No Name"), "configuration", "member key"),
        (("key", "rotate", "absent"), "configuration", ""),
        (("tenant", "create", "other"), "denied", "grant"),
        (("secret", "put", "empty"), "configuration", "empty"),
        (("seal", "--key", "absent"), "denied", "grant"),
    ],
)
def test_a_mistake_gives_one_typed_error_and_no_traceback(run, arguments, code, says):
    done = run(*arguments, stdin="\n")
    assert done.returncode == 1
    assert f"error [{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert says in done.stderr


def test_every_act_is_listed_in_the_audit_log(run):
    run("key", "create", "ssn")
    assert "key.create" in {entry["act"] for entry in documents(run("audit", "list"))}


def test_a_layer_without_which_there_is_no_jail_cannot_be_accepted(tmp_path):
    serve = [CLOISTER, "host", "serve", "--state", str(tmp_path), "--accept-missing-layer", "pid"]
    done = subprocess.run(serve, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "cannot be done without" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_layer_that_may_be_missing_is_named_and_used_where_it_is_there(tmp_path):
    simulated = ["--state", str(tmp_path), "--attester", "simulated"]
    subprocess.run([CLOISTER, "host", "init", *simulated], check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listen = ["--listen", f"127.0.0.1:{port}", "--accept-missing-layer", "landlock"]
    serve = [CLOISTER, "host", "serve", *simulated, *listen]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as host:
        try:
            ready = None
            while ready is None and host.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
                        ready = json.load(answer)
                except OSError:
                    threading.Event().wait(0.2)
        finally:
            host.terminate()
        assert ready is not None, host.stdout.read()
    assert ready["sandbox"]["missing"] == []
    assert {"landlock", "seccomp", "undumpable"} <= set(ready["sandbox"]["layers"])
