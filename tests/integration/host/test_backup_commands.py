"""`cloister backup`, as an operator uses it against a host that serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloister._cli.root import build
from cloister.client import Client
from cloister.errors import ConfigurationError, DeniedError, OpenError, UnavailableError
from cloister.protocol.stream import MAGIC
from cloister_host.embedded import EmbeddedHost, embedded_host

Run = Callable[..., Any]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[EmbeddedHost]:
    with embedded_host(tmp_path) as made:
        yield made


@pytest.fixture
def run(host: EmbeddedHost, tmp_path: Path) -> Run:
    environment = {
        "CLOISTER_URL": host.url,
        "CLOISTER_TENANT": "system",
        "CLOISTER_POLICY": str(host.policy),
        "CLOISTER_API_KEY_FILE": str(tmp_path / "operator.key"),
        "CLOISTER_HEAD_FILE": str(tmp_path / "heads.json"),
    }

    def run(*arguments: str | Path, status: int = 0) -> Any:
        done = CliRunner().invoke(build({}, {}), ["backup", *map(str, arguments)], env=environment)
        assert done.exit_code == status, (done.output, done.exception)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout

    return run


@pytest.fixture
def public(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "backup.pub"
    path.write_text(json.dumps(run("key", "--out", tmp_path / "backup.key")))
    return path


def test_a_backup_is_taken_and_verified_without_the_host(
    host: EmbeddedHost, run: Run, public: Path, tmp_path: Path
) -> None:
    host.tenant("acme")
    host.host.services.log.sequence()
    file = tmp_path / "host.clbackup"
    made = run("create", "--key", public, "--out", file)
    assert made["deployment"] == host.host.deployment
    assert file.stat().st_mode & 0o077 == 0
    policy, key, heads = host.policy, tmp_path / "backup.key", tmp_path / "heads.json"
    found = run("verify", file, "--policy", policy, "--key", key, "--heads", heads, "--json")
    assert found["verdict"] == "verified"
    assert found["entries"] == found["log_size"] > 0
    assert found["not_checked"] == ["rows: what is secret in them opens under the root key only"]
    [listed] = [run("list")]
    assert (listed["backup"], listed["state"]) == (made["backup"], "complete")
    assert run("forget", made["backup"])["state"] == "gone"
    bare = run("verify", file)
    assert "verified: backup" in bare
    assert bare.count("NOT checked") == 4


def test_what_is_no_backup_of_this_deployment_is_refused(
    host: EmbeddedHost, run: Run, public: Path, tmp_path: Path
) -> None:
    file = tmp_path / "host.clbackup"
    run("create", "--key", public, "--out", file)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    refused = run("verify", file, "--policy", host.policy, "--json", status=3)
    assert refused["verdict"] == "refused"
    file.write_bytes(raw[:-1])
    run("verify", file, "--policy", host.policy, status=3)


def test_a_backup_older_than_the_head_that_was_seen_says_so(
    host: EmbeddedHost, run: Run, public: Path, tmp_path: Path
) -> None:
    file = tmp_path / "host.clbackup"
    run("create", "--key", public, "--out", file)
    host.tenant("acme")
    host.host.services.log.sequence()
    run("list")
    heads = tmp_path / "heads.json"
    found = run("verify", file, "--policy", host.policy, "--heads", heads, "--json")
    assert found["behind"] > 0
    assert "BEHIND" in run("verify", file, "--policy", host.policy, "--heads", heads)


def test_a_schedule_keeps_so_many(run: Run, public: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "something-else").write_text("stays")
    made = [run("create", "--key", public, "--folder", folder, "--keep", "2")["file"] for _ in range(3)]
    assert sorted(map(str, folder.glob("*.clbackup"))) == sorted(made[1:])
    assert (folder / "something-else").exists()


def test_nothing_is_left_of_a_backup_that_was_refused(
    host: EmbeddedHost, public: Path, tmp_path: Path
) -> None:
    tenant = host.tenant("acme")
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = ["backup", "create", "--key", str(public), "--out", str(folder / "file")]
    done = CliRunner().invoke(build({}, {}), arguments, env=tenant.environment("admin"))
    assert isinstance(done.exception, DeniedError)
    assert not list(folder.iterdir())


def test_a_stream_that_is_cut_off_or_changed_is_an_error(
    host: EmbeddedHost, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = {"key": json.loads(public.read_text())}
    transport = type(host.operator._transport)  # type: ignore[attr-defined]
    real = transport.stream

    def cutting(at: int) -> Any:
        def stream(self: Any, *arguments: Any, sink: Any, **more: Any) -> Any:
            taken = bytearray()
            answer = real(self, *arguments, sink=taken.extend, **more)
            assert taken.startswith(MAGIC)
            sink(bytes(taken[:at] if at < 0 else taken[:at] + b"\x00" + taken[at + 1 :]))
            return answer

        return stream

    for at in (-1, -1000, 20, 5000):
        with monkeypatch.context() as patch:
            patch.setattr(transport, "stream", cutting(at))
            with pytest.raises((OpenError, UnavailableError)):
                host.operator.receive("backup.create", payload, lambda _piece: None)


def test_a_transport_without_streams_says_so(host: EmbeddedHost, tmp_path: Path, public: Path) -> None:
    class Plain:
        def __init__(self, real: Any) -> None:
            self.post = real.post
            self.close = real.close

    with Client.from_env(
        url=host.url,
        tenant="system",
        policy=str(host.policy),
        api_key_file=str(tmp_path / "operator.key"),
        identity="key",
    ) as client:
        client._transport = Plain(client._transport)
        with pytest.raises(ConfigurationError):
            client.receive("backup.create", {"key": json.loads(public.read_text())}, lambda _piece: None)
