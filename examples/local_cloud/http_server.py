"""A small threaded HTTP(S) server: one function from request to response, and faults on demand.

The servers of this package differ only in that function. Closing the server closes its connections
and waits for its threads, so that a test leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    import ssl

__all__ = ["Application", "Disconnect", "HttpServer", "Request", "Response", "json_response"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived.

    Attributes:
        path: The decoded path, without the query.
        target: The path and query exactly as sent.
        query: The last value of each query parameter.
        headers: Header names in lower case.
    """

    method: str
    path: str
    target: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What to answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Disconnect(Exception):  # noqa: N818 - an instruction to the server, not an error of ours
    """Raised by an application: answer nothing and reset the connection."""


Application = Callable[[Request], Response]


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(
        status=status,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=json.dumps(value).encode(),
    )


class HttpServer:
    """Serves an application on a loopback port until closed.

    Args:
        application: Called for every request, from many threads at once.
        tls: Server context; None serves plain HTTP.
        host: The name used in `url`; the server listens on 127.0.0.1 in any case.
    """

    def __init__(
        self, application: Application, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._server = _Server(application, tls)
        scheme = "http" if tls is None else "https"
        self.port: int = self._server.server_address[1]
        self.url = f"{scheme}://{host}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"serve {self.url}"
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, cut every connection and wait for the threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.cut_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 128

    def __init__(self, application: Application, tls: ssl.SSLContext | None) -> None:
        self.application = application
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)  # without the reverse look-up of the standard library
        self.server_address = self.socket.getsockname()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; TLS begins here, in the connection's own thread."""
        connection = request
        try:
            if self._tls is not None:
                request.settimeout(10)
                connection = self._tls.wrap_socket(request, server_side=True)
                connection.settimeout(None)
            with self._lock:
                self._open.add(connection)
            super().finish_request(connection, client_address)
        except Disconnect:
            # Linger 0 makes close() send a reset instead of an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        finally:
            with self._lock:
                self._open.discard(connection)
            if connection is not request:
                connection.close()

    def cut_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a peer that hangs up is none of our errors
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self._send(self.server.application(self._request()))

    def _request(self) -> Request:
        url = urlsplit(self.path)
        return Request(
            method=self.command,
            path=unquote(url.path),
            target=self.path,
            query={name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._body(),
        )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status != HTTPStatus.NOT_MODIFIED:  # has no body and no length (RFC 9110, 15.4.5)
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Access logs would carry request targets."""
