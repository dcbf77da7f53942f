"""The transport carries bytes to one host; it neither follows, nor leaks, nor hangs."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest
import requests

from cloister.errors import ConfigurationError
from cloister.transport import TransportError, stdlib
from cloister.transport.httpx import HttpxTransport
from cloister.transport.requests import RequestsTransport
from cloister.transport.stdlib import HttpTransport, split_url

JOSE = "application/jose"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0
        self.script = lambda _n: "ok"
        self.requests = []

    def get_request(self):
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Content-Type"], body))
        action = self.server.script(len(self.server.requests))
        if action == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if action == "hang":
            self.server.released.wait(5)
            self.close_connection = True
            return
        status = 307 if action == "redirect" else 200
        self.send_response(status)
        if action == "redirect":
            self.send_header("Location", "/elsewhere")
        answer = b"x" * 2000 if action == "large" else b"echo:" + body
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if action == "close after":
            self.close_connection = True

    def log_message(self, *_args):
        pass


@pytest.fixture
def server():
    server = Server()
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(server):
    return f"http://127.0.0.1:{server.server_port}/base"


@pytest.fixture
def transport(url):
    transport = HttpTransport(url)
    yield transport
    transport.close()


def post(transport, body=b"1", timeout=5.0):
    return transport.post("/v1/sealed", body, content_type=JOSE, timeout_seconds=timeout)


def test_a_connection_is_kept(server, transport):
    assert post(transport, b"1").body == b"echo:1"
    assert post(transport, b"2").body == b"echo:2"
    assert server.connections == 1
    assert server.requests[0] == ("/base/v1/sealed", JOSE, b"1")


def test_a_connection_that_was_closed_while_idle_is_replaced(server, transport):
    server.script = lambda _n: "close after"
    assert post(transport).status == 200
    assert post(transport).status == 200
    assert server.connections == 2


def test_a_connection_lost_without_an_answer_is_an_error(server, transport):
    server.script = lambda _n: "drop"
    with pytest.raises(TransportError):
        post(transport)


def test_a_host_that_hangs_is_an_error_in_time(server, transport):
    server.script = lambda _n: "hang"
    with pytest.raises(TransportError):
        post(transport, timeout=0.1)


def test_a_redirect_is_not_followed(server, transport):
    server.script = lambda _n: "redirect"
    assert post(transport).status == 307
    assert len(server.requests) == 1


def test_a_response_without_end_is_refused(server, transport, monkeypatch):
    monkeypatch.setattr(stdlib, "MAX_RESPONSE_BYTES", 1000)
    server.script = lambda _n: "large"
    with pytest.raises(TransportError):
        post(transport)


def test_threads_share_a_transport(server, transport):
    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(post(transport, str(i).encode()).body))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"echo:{i}".encode() for i in range(8))


def test_a_session_of_the_users_own_carries_requests(server, url):
    with requests.Session() as session:
        transport = RequestsTransport(url, session)
        assert post(transport, b"s").body == b"echo:s"
        server.script = lambda _n: "redirect"
        assert post(transport).status == 307
        server.script = lambda _n: "drop"
        with pytest.raises(TransportError):
            post(transport)


def test_asyncio_has_a_transport_too(server, url):
    async def main():
        transport = HttpxTransport(url)
        reply = await transport.post("/v1/sealed", b"a", content_type=JOSE, timeout_seconds=5)
        server.script = lambda _n: "drop"
        with pytest.raises(TransportError):
            await transport.post("/v1/sealed", b"a", content_type=JOSE, timeout_seconds=5)
        await transport.aclose()
        return reply

    assert anyio.run(main).body == b"echo:a"


@pytest.mark.parametrize(
    "url",
    [
        "http://cloister.example.com",
        "ftp://localhost",
        "cloister.example.com",
        "https://user:pass@cloister.example.com",
        "https://cloister.example.com/?x=1",
        "https://localhost:port",
        "",
    ],
)
def test_a_url_that_is_not_safe_is_refused(url):
    with pytest.raises(ConfigurationError) as caught:
        split_url(url)
    assert "pass" not in str(caught.value).replace("pass a", "")


def test_https_is_needed_outside_loopback_only():
    assert split_url("https://cloister.example.com/x/") == ("https", "cloister.example.com", 443, "/x")
    assert split_url("http://localhost:8080") == ("http", "localhost", 8080, "")
