"""What the adapters share: the process's client, function names, where an error happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloister import faas
from cloister.errors import ConfigurationError, HandlerError, OpenError
from cloister.faas import FunctionName, data_free, idempotency_key, shared

DIGEST = "0f" * 32


@pytest.fixture
def settings(monkeypatch, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'version = 1\nenvironment = "simulated"\n'
        f'deployment = "{"A" * 43}"\n[[tee.simulated.reference]]\nname = "x"\nmeasurement = "{"00" * 48}"\n'
    )
    (tmp_path / "key").write_text("clk_x_y")
    values = {
        "URL": "https://h.example",
        "TENANT": "acme",
        "POLICY": policy,
        "API_KEY_FILE": tmp_path / "key",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"CLOISTER_{name}", str(value))
    monkeypatch.setattr(shared, "_shared", shared._Shared())


def test_a_process_has_one_client(settings):
    assert faas.shared_client() is faas.shared_client()


def test_settings_that_failed_are_read_again(settings, monkeypatch):
    monkeypatch.delenv("CLOISTER_TENANT")
    with pytest.raises(ConfigurationError, match="CLOISTER_TENANT"):
        faas.shared_client()
    monkeypatch.setenv("CLOISTER_TENANT", "acme")
    assert faas.shared_client()


FORKING = """
import json, os, threading
from cloister.faas import shared

class Client:
    @classmethod
    def from_env(cls):
        return cls()

import cloister.client
cloister.client.Client = Client
parents = shared.shared_client()
held = threading.Event()
def hold():
    with shared._shared.lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, json.dumps(shared.shared_client() is not parents).encode())
    os._exit(0)
os.wait()
print(os.read(reading, 100).decode())
"""


def test_a_forked_child_makes_its_own_client_whatever_the_parent_was_doing():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) is True


def test_a_function_is_named_by_alias_or_by_digest():
    assert FunctionName.parse("pin-transfer@prod") == ("pin-transfer", "prod")
    assert FunctionName.parse("pin-transfer@prod").digest is None
    assert FunctionName.parse(f"pin-transfer@{DIGEST}").digest == DIGEST
    assert str(FunctionName.parse(f"pin-transfer@{DIGEST}")) == f"pin-transfer@{DIGEST}"


@pytest.mark.parametrize(
    "name", [f"f@{DIGEST.upper()}", f"f@{DIGEST}0", f"f@sha256:{DIGEST}", "f", "f@", "@p", "f@P"]
)
def test_a_name_the_host_would_not_take_is_refused(name):
    with pytest.raises(ConfigurationError):
        FunctionName.parse(name)


def test_parts_of_an_idempotency_key_cannot_run_into_each_other():
    assert idempotency_key("a", "bc") != idempotency_key("ab", "c")
    assert idempotency_key("a", "b") == idempotency_key("a", "b")
    assert len(idempotency_key("a" * 10_000)) == 43


def caught(act) -> BaseException:
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - whatever it is, is what is asked
        return data_free(error)
    raise AssertionError


def test_the_place_told_is_the_users_own_line_not_the_librarys():
    clean = caught(lambda: json.loads("{"))
    assert isinstance(clean, HandlerError)
    assert f"JSONDecodeError at {Path(__file__).name}:" in str(clean)


def test_what_cloister_raised_keeps_code_and_hint():
    def act():
        from cloister.envelope import Sealed

        Sealed("x.y")

    clean = caught(act)
    assert type(clean) is OpenError
    assert clean.hint


def test_what_others_raised_as_one_of_our_errors_is_held_back():
    def act():
        raise OpenError("the value 078-05-1120 did not open")

    assert "078-05-1120" not in str(caught(act))
