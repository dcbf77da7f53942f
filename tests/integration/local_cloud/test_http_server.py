from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from local_cloud.ca import LocalCA
from local_cloud.http_server import Disconnect, HttpServer, Request, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Iterator


def echo(request: Request) -> Response:
    if request.path == "/disconnect":
        raise Disconnect
    return json_response(
        {
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "body": request.body.decode(),
        }
    )


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_a_request_arrives_decoded(session: requests.Session) -> None:
    with HttpServer(echo) as server:
        answer = session.post(f"{server.url}/a%20b?x=1&y=", data="body").json()
    assert answer == {"method": "POST", "path": "/a b", "query": {"x": "1", "y": ""}, "body": "body"}


def test_a_chunked_body_arrives_whole(session: requests.Session) -> None:
    with HttpServer(echo) as server:
        answer = session.post(server.url, data=iter([b"one ", b"two"])).json()
    assert answer["body"] == "one two"


def test_tls_is_trusted_by_its_authority_alone(session: requests.Session) -> None:
    with LocalCA() as ca, HttpServer(echo, tls=ca.server_context(), host="localhost") as server:
        assert session.get(server.url, verify=str(ca.pem_path)).ok
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(server.url, timeout=5)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_disconnect_answers_nothing(encrypted: bool, session: requests.Session) -> None:
    with (
        LocalCA() as ca,
        HttpServer(echo, tls=ca.server_context() if encrypted else None) as server,
        pytest.raises(requests.exceptions.ConnectionError, match="Connection aborted"),
    ):
        session.get(f"{server.url}/disconnect", verify=str(ca.pem_path))


def test_closing_ends_idle_connections_and_every_thread() -> None:
    before = set(threading.enumerate())
    server = HttpServer(echo)
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        server.close()
        assert idle.recv(1) == b""
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
