"""`cloister transfer` against a real host, from cloud to cloud: killed, resumed, refused, dry."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from cloister_host.testing import embedded_host
from local_cloud.azurite import Azurite
from local_cloud.http_server import HttpServer, Request, Response
from local_cloud.s3 import LocalS3
from support import require

FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed
from cloister.function import sealed as sealed_output

@function("move", output=sealed_output("there"))
def move(value: Annotated[str, sealed("here", context=["name"])]) -> str:
    if value == "refuse me":
        raise ValueError("no")
    return value.upper()
"""
DEADLINE_SECONDS = 120


class World:
    def __init__(self, host, tenant, owner):
        self.host, self.tenant, self.owner = host, tenant, owner

    def lines(self, path: Path, count: int, *, refused: int = -1) -> list[str]:
        """Write sealed values whose names no other test has, since a name is one item for the function."""
        names = [f"{secrets.token_hex(4)}-{number}" for number in range(count)]
        texts = ["refuse me" if number == refused else f"text of {name}" for number, name in enumerate(names)]
        sealed = self.owner.seal_many(texts, key="here", contexts=[{"name": name} for name in names])
        records = [{"name": name, "value": str(value)} for name, value in zip(names, sealed, strict=True)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return names

    def command(self, folder: Path, *options: str, source: str = "items.jsonl") -> list[str]:
        fields = ["--input", "value", "--context", "name", "--id", "name", "--state", str(folder / "state")]
        program = [str(Path(sys.executable).parent / "cloister"), "transfer"]
        return [*program, source if "://" in source else str(folder / source), "move@prod", *fields, *options]

    def environment(self, principal: str = "mover", **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            **self.tenant.environment(principal),
            **more,
        }

    def run(self, folder: Path, *options: str, source: str = "items.jsonl", **environment: str):
        done = subprocess.run(
            self.command(folder, "--json", *options, source=source),
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    def invocations(self) -> int:
        """How often the function has been run, by the host's own log."""
        acts, after = [], ""
        while True:
            page = self.tenant.admin.call("audit.list", {"after": after})
            acts += [entry["act"] for entry in page["entries"] if entry["outcome"] == "done"]
            after = page["next"]
            if not after:
                return acts.count("function.invoke")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant("acme")
        with tenant.admin as admin:
            for key in ("here", "there"):
                admin.call("key.create", {"key": key, "purpose": "seal"})
            code = tmp_path_factory.mktemp("function")
            (code / "move.py").write_text(FUNCTION)
            tenant.deploy(code)
            admin.call("grant.create", {"principal": "admin", "action": "audit.read", "resource": "*"})
            tenant.principal("mover", [("invoke", "function/move")])
            tenant.principal("stranger", [])
            rights = [("seal", "key/here"), ("decrypt", "key/there")]
            with tenant.client("owner", rights) as owner:
                yield World(host, tenant, owner)


@pytest.fixture
def moved(world, tmp_path):
    """Forty values in a file, and what opens their replies."""
    expected = world.lines(tmp_path / "items.jsonl", 40)

    def check():
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        names = [line["id"] for line in lines]
        assert sorted(names) == sorted(expected)
        opened = world.owner.open_many([line["value"] for line in lines])
        assert opened == [f"TEXT OF {name.upper()}" for name in names]

    return check


def test_each_value_is_moved_once_and_a_second_run_finds_it_done(world, moved, tmp_path):
    before = world.invocations()
    out = ("--out", str(tmp_path / "out.jsonl"))
    code, report = world.run(tmp_path, *out)
    assert (code, report["done"], report["before"], report["failed"]) == (0, 40, 0, 0)
    code, report = world.run(tmp_path, *out)
    assert (code, report["done"], report["before"]) == (0, 0, 40)
    assert world.invocations() == before + 40
    moved()


class Gate:
    """Stands before the host: lets some calls through, then keeps the answers of what the host has done."""

    def __init__(self, host_url: str, *, answered: int) -> None:
        self._host_url, self._left = host_url, answered
        self._lock = threading.Lock()
        self.held, self._free = threading.Semaphore(0), threading.Event()
        self._server = HttpServer(self._forward)
        self.url = self._server.url

    def _forward(self, request: Request) -> Response:
        answer = requests.post(
            self._host_url + request.path,
            data=request.body,
            headers={"Content-Type": request.headers["content-type"]},
            timeout=DEADLINE_SECONDS,
        )
        with self._lock:
            self._left -= request.path == "/v1/sealed"
            is_held = self._left < 0
        if is_held:
            self.held.release()
            self._free.wait(DEADLINE_SECONDS)
        headers = {"Content-Type": answer.headers["Content-Type"]}
        return Response(status=answer.status_code, headers=headers, body=answer.content)

    def open(self) -> None:
        self._free.set()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._server.close()


def started(world, gate, folder, *options):
    """The command, at the moment when the host has done what two calls asked for and neither was answered."""
    process = subprocess.Popen(
        world.command(folder, "--json", "--concurrency", "2", *options),
        env=world.environment(CLOISTER_URL=gate.url),
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(2):
        assert gate.held.acquire(timeout=DEADLINE_SECONDS)
    return process


def test_killed_in_the_middle_and_run_again_nothing_is_done_twice(world, moved, tmp_path):
    before = world.invocations()
    out = ("--out", str(tmp_path / "out.jsonl"))
    with Gate(world.host.url, answered=5) as gate, started(world, gate, tmp_path, *out) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_SECONDS)
    assert world.invocations() == before + 7  # two of them unknown to whoever asked
    assert (tmp_path / "state").read_bytes().count(b'"done"') <= 5
    code, report = world.run(tmp_path, *out)
    assert (code, report["failed"], report["done"] + report["before"]) == (0, 0, 40)
    assert world.invocations() == before + 40
    moved()


def test_interrupted_it_waits_for_what_is_under_way_and_says_so(world, moved, tmp_path):
    with Gate(world.host.url, answered=3) as gate, started(world, gate, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        gate.open()
        shown, _ = process.communicate(timeout=DEADLINE_SECONDS)
    report = json.loads(shown)
    assert (process.returncode, report["stopped"], report["failed"]) == (130, "interrupted", 0)
    assert report["done"] >= 5  # three answered, two held
    code, again = world.run(tmp_path)
    assert (code, again["done"], again["before"]) == (0, 40 - report["done"], report["done"])


def test_a_value_that_fails_is_told_and_the_others_are_moved(world, tmp_path):
    path = tmp_path / "items.jsonl"
    names = world.lines(path, 4, refused=2)
    lines = path.read_text().splitlines()
    other = json.loads(lines[0]) | {"name": f"{names[0]}-x"}  # sealed for another name
    path.write_text("\n".join([*lines, json.dumps(other), "no json"]) + "\n")
    code, report = world.run(tmp_path)
    assert (code, report["done"], report["failed"]) == (1, 3, 3)
    assert {(failure["place"], failure["code"]) for failure in report["failures"]} == {
        ("3", "function"),
        ("5", "open"),
        ("6", "item"),
    }
    text = subprocess.run(
        world.command(tmp_path), env=world.environment(), capture_output=True, text=True, check=False
    )
    assert text.returncode == 1
    assert "0 transferred, 3 done before, 3 failed" in text.stdout
    assert "  5: open: " in text.stdout


def test_a_dry_run_changes_nothing(world, moved, tmp_path):
    before, files = world.invocations(), sorted(path.name for path in tmp_path.iterdir())
    code, report = world.run(tmp_path, "--dry-run", "--out", str(tmp_path / "out.jsonl"))
    assert (code, report["dry_run"], report["pending"], report["done"]) == (0, True, 40, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert world.invocations() == before


def test_a_caller_without_the_right_is_stopped_at_once_and_may_go_on_with_it(world, moved, tmp_path):
    code, report = world.run(tmp_path, principal="stranger")
    assert (code, report["stopped"], report["done"]) == (3, "denied", 0)
    code, report = world.run(tmp_path)
    assert (code, report["done"]) == (0, 40)


def test_a_host_that_does_not_answer_is_told_before_anything_is_noted_as_sent(world, moved, tmp_path):
    code, report = world.run(tmp_path, CLOISTER_URL="http://127.0.0.1:1")
    assert (code, report["stopped"]) == (2, "unavailable")
    assert b"sent" not in (tmp_path / "state").read_bytes()


def test_what_cannot_be_used_is_told_with_what_to_do(world, moved, tmp_path):
    code, report = world.run(tmp_path, source="absent.jsonl")
    assert (code, report["stopped"]) == (2, "configuration")
    world.run(tmp_path, "--dry-run")
    assert world.run(tmp_path)[0] == 0
    code, report = world.run(tmp_path, "--input", "other=value")
    assert code == 2
    assert "another transfer" in report["reason"]
    assert world.run(tmp_path, "--context", "broken=")[0] == 2


def test_values_of_a_bucket_in_one_cloud_become_values_of_a_container_in_the_other(world, tmp_path):
    require.azurite()
    from cloister_aws import s3

    with LocalS3() as cloud, Azurite() as storage, storage.client() as service:
        bucket = cloud.client()
        bucket.create_bucket(Bucket="histories")
        container = service.create_container("histories")
        expected = [f"{secrets.token_hex(4)}-{number}" for number in range(5)]
        for name in expected:
            value = world.owner.seal(f"text of {name}", key="here", context={"name": name})
            s3.put_sealed("histories", f"in/{name}", value, s3=bucket)
        bucket.put_object(Bucket="histories", Key="in/plain", Body=b"somebody left this in the clear")
        bucket.put_object(Bucket="histories", Key="else/n-9", Body=b"x")
        environment = {**cloud.environment, "AZURE_STORAGE_CONNECTION_STRING": storage.connection_string}
        options = ("--out", "azblob://histories/out/")
        for done, before in ((5, 0), (0, 5)):
            code, report = world.run(tmp_path, *options, source="s3://histories/in/", **environment)
            assert (code, report["done"], report["before"], report["failed"]) == (1, done, before, 1)
            assert report["failures"][0]["place"] == "plain"
        (tmp_path / "state").unlink()  # the host remembers, and the container replaces nothing
        code, report = world.run(tmp_path, *options, source="s3://histories/in/", **environment)
        assert (report["done"], report["failed"]) == (5, 1)
        names = sorted(blob.name for blob in container.list_blobs())
        assert names == sorted(f"out/{name}" for name in expected)
        values = [container.download_blob(name).readall().decode() for name in names]
    assert world.owner.open_many(values) == [f"TEXT OF {name.upper()}" for name in sorted(expected)]
