"""The proxy over a real host: what it answers, what it turns away, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import httpx
import pytest

from cloister.proxy.app import Limits
from cloister_host.testing import embedded_host
from support.proxying import TOKEN, running_proxy

FUNCTION = """\
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-adult", output=boolean())
def is_adult(age: Annotated[int, sealed("ages", context=["member"])]) -> bool:
    return age >= 18
"""
SECRET_TEXT = "the-plaintext-of-this-test"


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    folder = tmp_path_factory.mktemp("function")
    (folder / "function.py").write_text(FUNCTION)
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant()
        for name in ("ages", "ssn"):
            tenant.admin.call("key.create", {"key": name, "purpose": "seal"})
        tenant.admin.call("key.create", {"key": "stamp", "purpose": "mac"})
        tenant.deploy(folder)
        grants = [(right, "key/*") for right in ("seal", "decrypt", "encrypt", "mac", "verify")]
        tenant.principal("app", [*grants, ("invoke", "function/is-adult")])
        yield tenant
        tenant.admin.close()


@pytest.fixture(scope="module")
def client(tenant):
    with tenant.host.client(tenant.name, tenant.key_file("app")) as client:
        yield client


@pytest.fixture(scope="module")
def proxy(client):
    with running_proxy(client) as proxy:
        yield proxy


@pytest.fixture
def ask(proxy):
    with proxy.client() as http:

        def ask(path, status=200, /, **body):
            response = http.post(f"/v1/{path}", json=body)
            assert response.status_code == status, response.text
            return response.json()

        yield ask


def test_a_value_is_sealed_opened_and_used_by_a_function(ask):
    context = {"member": "1"}
    sealed = ask("seal", key="ages", value=41, context=context)["sealed"]
    assert ask("open", sealed=sealed, context=context) == {"value": 41, "type": "json"}
    answer = ask("invoke/is-adult@prod", inputs={"age": sealed}, context=context, purpose="test")
    assert answer["value"] is True
    assert answer["receipt"]


def test_bytes_come_back_as_bytes(ask):
    sealed = ask("seal_many", key="ssn", values=["AAH_", ""], type="octets")["sealed"]
    opened = ask("open_many", values=sealed)
    assert (opened["values"], opened["types"]) == (["AAH_", ""], ["octets", "octets"])
    assert ask("open", sealed=ask("seal", key="ssn", value="AAH_")["sealed"])["type"] == "text"


def test_the_operations_of_keys(ask):
    ciphertext = ask("encrypt", key="ssn", data="bWVldA", aad="MQ")["ciphertext"]
    assert ask("decrypt", ciphertext=ciphertext, aad="MQ")["data"] == "bWVldA"
    mac = ask("mac", key="stamp", data="cGFpZA")["mac"]
    assert ask("verify", data="cGFpZA", proof=mac) == {}
    assert ask("verify", 400, data="b3RoZXI", proof=mac)["code"] == "open"


def test_any_operation_by_name_with_the_rights_of_the_proxy_and_no_more(ask):
    refused = ask("call/principal.create", 403, payload={"principal": "mallory", "kind": "person"})
    assert refused["code"] == "denied"
    assert refused["retryable"] is False
    assert refused["correlation_id"]
    assert ask("call/no.such", 400, payload={})["code"] == "configuration"


def test_errors_are_problems_and_quote_nothing(proxy, ask):
    sealed = ask("seal", key="ssn", value=SECRET_TEXT)["sealed"]
    wrong = ask("open", 400, sealed=sealed, context={"a": SECRET_TEXT})
    assert wrong["code"] == "open"
    assert wrong["type"] == "urn:cloister:error:open"
    with proxy.client() as http:
        for body in (f'{{"{SECRET_TEXT}": 1}}', SECRET_TEXT, f'{{"key": 1, "value": "{SECRET_TEXT}"}}'):
            response = http.post("/v1/seal", content=body)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.status_code == 400
            assert SECRET_TEXT not in response.text
        missing = http.post(f"/v1/{SECRET_TEXT}", json={})
        assert (missing.status_code, SECRET_TEXT in missing.text) == (404, False)
    written = json.dumps(proxy.lines)
    assert SECRET_TEXT not in written
    assert TOKEN not in written
    assert {"event", "operation", "status", "code", "request_id", "milliseconds"} == proxy.lines[0].keys()


def test_health_attestation_and_description(proxy):
    with proxy.client() as http:
        attested = http.get("/v1/attestation").json()
        assert attested["environment"] == "simulated"
        assert attested["not_checked"]
        assert "/v1/invoke/{function}" in http.get("/openapi.json").json()["paths"]
        assert http.get("/v1/seal").status_code == 405
        assert http.get("/healthz?x=1").status_code == 404
    health = httpx.get(f"{proxy.url}/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "up"})
    assert httpx.get(f"{proxy.url}/v1/attestation").status_code == 401
    assert httpx.get(f"{proxy.url}/openapi.json").status_code == 401


def test_another_program_without_the_token_gets_nothing(proxy):
    response = httpx.post(f"{proxy.url}/v1/seal", json={"key": "ssn", "value": "x"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/seal", "/healthz"])
def test_a_page_in_a_browser_gets_nothing_and_no_permission_to_ask(proxy, path):
    with proxy.client(Origin="https://attacker.example") as http:
        for method in ("POST", "OPTIONS", "GET"):
            response = http.request(method, path)
            assert response.status_code == 403
            assert not [name for name in response.headers if name.startswith("access-control")]
    with proxy.client(Host="attacker.example") as http:
        assert http.post(path, json={}).status_code == 421


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(client):
    with running_proxy(client, limits=Limits(max_body_bytes=1000)) as proxy, proxy.client() as http:
        declared = http.post("/v1/seal", content=b'"' + b"x" * 1000 + b'"')
        assert (declared.status_code, declared.json()["code"]) == (413, "proxy-too-large")
        chunked = http.post("/v1/seal", content=(b"x" * 100 for _ in range(11)))
        assert (chunked.status_code, chunked.json()["code"]) == (413, "proxy-too-large")
        assert http.post("/v1/seal", json={"key": "ssn", "value": "x"}).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(client):
    limits = Limits(body_seconds=0.2)
    with running_proxy(client, limits=limits) as proxy, _connected(proxy.url) as connection:
        connection.sendall(_head(proxy.url, "Content-Length: 10"))
        assert b" 408 " in connection.recv(1000)


def test_more_at_once_than_the_limit_are_turned_away_not_queued(client):
    limits = Limits(max_concurrent=1, body_seconds=60)
    with running_proxy(client, limits=limits) as proxy, _connected(proxy.url) as slow, proxy.client() as http:
        slow.sendall(_head(proxy.url, "Content-Length: 10"))
        deadline = time.monotonic() + 60
        while (answer := http.post("/v1/mask", json={"document": 1, "views": {}})).status_code != 503:
            assert time.monotonic() < deadline
        assert answer.json()["retryable"] is True
        assert answer.headers["retry-after"] == "1"
        assert http.get("/healthz").status_code == 200
        slow.sendall(b"{}        ")
        assert b" 400 " in slow.recv(1000)
        assert http.post("/v1/mask", json={"document": 1, "views": {}}).status_code == 200


def test_what_is_no_http_is_refused(proxy):
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n",
        _head(proxy.url, "Content-Length: 2\r\nContent-Length: 3") + b"{}",
        _head(proxy.url, "Transfer-Encoding: gzip"),
        _head(proxy.url, "X: " + "y" * 100_000),
    ):
        with _connected(proxy.url) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(raw)
            answer = connection.recv(1000)
            assert not answer or b" 400 " in answer or b" 431 " in answer or b" 501 " in answer
    assert httpx.get(f"{proxy.url}/healthz").status_code == 200


def test_a_defect_shows_nothing_of_what_was_sent(client):
    class Broken:
        def call(self, *_, **__):
            raise RuntimeError(SECRET_TEXT)

    with running_proxy(Broken()) as proxy, proxy.client() as http:
        answer = http.post("/v1/tokenize/x", json={"values": [SECRET_TEXT]})
        assert (answer.status_code, answer.json()["code"]) == (500, "proxy-failed")
        assert answer.json()["correlation_id"]
        assert SECRET_TEXT not in answer.text + json.dumps(proxy.lines)


@pytest.fixture
def command(tenant, tmp_path):
    """`cloister proxy` as its user runs it; gives the process once it can be asked."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "cloister", "proxy", *arguments],
                cwd=tmp_path,
                env={**os.environ, **tenant.environment("app")},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            first = process.stdout.readline()
            process.stdout.readline()
            return process, first.split()[-1]

        yield start


def test_the_command_serves_until_it_is_told_to_stop_and_leaves_nothing(command, tmp_path):
    process, url = command("--listen", "127.0.0.1:0")
    token_file = tmp_path / ".cloister" / "proxy.token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    token = token_file.read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    sealed = httpx.post(
        f"{url}/v1/seal", json={"key": "ssn", "value": SECRET_TEXT}, headers=headers, timeout=60
    )
    assert sealed.status_code == 200
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert not list(token_file.parent.iterdir())
    assert json.loads(errors.splitlines()[0])["operation"] == "seal"
    assert SECRET_TEXT not in errors
    assert token not in errors


def test_what_is_in_flight_is_finished_when_it_stops(command, tmp_path):
    process, url = command("--listen", "127.0.0.1:0", "--quiet")
    token = (tmp_path / ".cloister" / "proxy.token").read_text().strip()
    with _connected(url) as connection:
        connection.sendall(_head(url, "Content-Length: 30", "Expect: 100-continue", token=token))
        assert b" 100 " in connection.recv(1000)  # the proxy waits for the body
        process.send_signal(signal.SIGINT)
        connection.sendall(b'{"key": "ssn", "value": "abc"}')
        assert b" 200 " in connection.recv(1000)
    assert process.wait(timeout=60) == 0


def test_a_unix_socket_is_asked_with_curl(command, tmp_path):
    path = tmp_path / "proxy.sock"
    process, _ = command("--listen", f"unix:{path}")
    transport = httpx.HTTPTransport(uds=str(path))
    token = (tmp_path / ".cloister" / "proxy.token").read_text().strip()
    with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        assert http.post("http://localhost/v1/seal", json={"key": "ssn", "value": "x"}).status_code == 200
        assert http.get("http://attacker.example/healthz").status_code == 421
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--listen", "0.0.0.0:0"), "loopback"), (("--listen", "nonsense"), "address")],
)
def test_the_command_refuses_what_it_must_not_listen_on(tenant, tmp_path, arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "cloister", "proxy", *arguments],
        cwd=tmp_path,
        env={**os.environ, **tenant.environment("app")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_the_policy_refuses_is_never_listened_for(tenant, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(tenant.host.policy.read_text().replace('deployment = "', 'deployment = "x'))
    done = subprocess.run(
        [sys.executable, "-m", "cloister", "proxy", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        env={**os.environ, **tenant.environment("app"), "CLOISTER_POLICY": str(policy)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "error [" in done.stderr
    assert not (tmp_path / ".cloister").exists()


def _connected(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def _head(url, *headers, token=TOKEN):
    lines = [
        "POST /v1/seal HTTP/1.1",
        f"Host: {url.removeprefix('http://')}",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
