"""A host without a network of its own: all that goes in and out passes its parent, which reads none of it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from cloister import Client
from cloister.errors import FunctionError
from support.commands import run
from support.documents import DOCS, run_blocks
from support.https import Answered, HttpsServer, https_server
from support.waiting import until

FUNCTION = """
from typing import Annotated
from cloister.function import Origin, boolean, function, origin, sealed

@function("ask", output=boolean(), egress={{"partner": origin("https://localhost:{port}")}})
def ask(value: Annotated[str, sealed("values")], *, partner: Origin) -> bool:
    return partner.post("/ask", json={{"value": value}}).json()["known"]
"""
VALUE = "a value that nobody on the way may read"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(*arguments: str, folder: Path, ready: str) -> Iterator[None]:
    """`cloister host ...` in a process of its own, until it has said that it is there."""
    command = [sys.executable, "-m", "cloister_host", *arguments]
    log = folder / f"{ready}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        until(lambda: ready in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in {0, -signal.SIGTERM}, log.read_text()


@contextmanager
def enclave(folder: Path, partner: HttpsServer, *, allow: list[str]) -> Iterator[Client]:
    """A host that serves its parent alone, and a client that reaches the parent alone."""
    inside, outside = free_port(), free_port()
    sockets = {name: f"unix:{folder / name}" for name in ("in", "out")}
    (folder / "partner.pem").write_bytes(partner.trust_anchor)
    run(["cloister", "host", "init", "--attester", "simulated"], folder)
    host = [f"--inbound={sockets['in']}=127.0.0.1:{inside}", f"--outbound={sockets['out']}"]
    serve = ["serve", "--attester=simulated", f"--listen=127.0.0.1:{inside}", "--accept-sandbox=process"]
    parent = ["parent", f"--listen=127.0.0.1:{outside}", f"--enclave={sockets['in']}"]
    with ExitStack() as stack:
        stack.enter_context(
            running(
                *parent,
                f"--proxy={sockets['out']}",
                *(f"--allow-private={rule}" for rule in allow),
                folder=folder,
                ready="leads to the enclave",
            )
        )
        stack.enter_context(
            running(*host, *serve, "--egress-trust-anchor=partner.pem", folder=folder, ready="deployment")
        )
        settings = {"url": f"http://127.0.0.1:{outside}", "policy": str(folder / ".cloister/policy.toml")}
        operator = Client.from_env(
            **settings, tenant="system", api_key_file=str(folder / ".cloister/operator.key"), identity="key"
        )
        with operator:
            (folder / "admin.key").write_text(operator.call("tenant.create", {"tenant": "acme"})["api_key"])
            (folder / "admin.key").chmod(0o600)
        client = Client.from_env(
            **settings, tenant="acme", api_key_file=str(folder / "admin.key"), identity="key"
        )
        with client:
            deploy(client, folder, partner.port)
            yield client


def deploy(client: Client, folder: Path, port: int) -> None:
    from cloister import jose
    from cloister.function.bundle import build_bundle

    client.call("key.create", {"key": "values", "purpose": "seal"})
    (folder / "ask").mkdir()
    (folder / "ask/ask.py").write_text(dedent(FUNCTION.format(port=port)))
    bundle = jose.b64url_encode(build_bundle(folder / "ask", {}).data)
    deployed = client.call("function.deploy", {"bundle": bundle, "alias": "prod"})
    grants = [{"principal": f"function:{deployed['digest']}", **need} for need in deployed["needs"]]
    for action, resource in (("seal", "key/values"), ("invoke", "function/ask")):
        grants.append({"principal": "admin", "action": action, "resource": resource})
    for grant in grants:
        client.call("grant.create", grant)


@pytest.fixture
def partner() -> Iterator[HttpsServer]:
    with https_server("localhost") as server:
        server.answer = lambda _: Answered(body=b'{"known": true}')
        yield server


def test_calls_and_egress_pass_the_parent(tmp_path: Path, partner: HttpsServer) -> None:
    with enclave(tmp_path, partner, allow=[f"localhost:{partner.port}"]) as client:
        sealed = client.seal(VALUE, key="values")
        assert client.invoke("ask@prod", value=sealed).value is True
    [received] = partner.received
    assert VALUE.encode() in received.body


def test_the_parent_lets_the_enclave_reach_nothing_else(tmp_path: Path, partner: HttpsServer) -> None:
    with enclave(tmp_path, partner, allow=["another.example:443"]) as client:
        sealed = client.seal(VALUE, key="values")
        with pytest.raises(FunctionError):
            client.invoke("ask@prod", value=sealed)
    assert partner.received == []


def test_the_guide_runs_as_written(tmp_path: Path) -> None:
    ports = {"INSIDE": str(free_port()), "OUTSIDE": str(free_port())}
    [printed] = run_blocks(DOCS / "nitro.md", tmp_path, ports)
    assert "simulated" in printed
    assert (tmp_path / "acme.key").read_text().startswith("clk_")


def test_the_network_ends_with_the_commands(tmp_path: Path) -> None:
    """A forward that cannot be meant ends the command before anything is started."""
    done = run(["cloister", "host", "--forward", "nonsense", "serve"], tmp_path, fails=True)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
