"""The default transport: keep-alive connections of the standard library.

`requests` takes 0.1 s to import, three times what the rest of the client needs, and that is paid in
every cold start of a function (benchmarks/imports.py). Whoever wants proxies or a session of their
own passes `RequestsTransport`.
"""

from __future__ import annotations

import http
import http.client
import os
import queue
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError
from cloister.transport import Response, TransportError

__all__ = ["HttpTransport", "split_url"]

MAX_RESPONSE_BYTES = 160 * 1024 * 1024
MAX_CLEAR_BYTES = 64 * 1024
STREAM_BYTES = 256 * 1024
MAX_IDLE_CONNECTIONS = 16
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def split_url(url: str) -> tuple[str, str, int, str]:
    """Check a host's URL; returns scheme, host, port and path prefix.

    Raises:
        ConfigurationError: It is not https, nor http on loopback.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (
        parts.scheme not in {"https", "http"}
        or not parts.hostname
        or port == -1
        or parts.query
        or parts.fragment
    ):
        raise ConfigurationError("CLOISTER_URL is not a URL", hint="for example https://cloister.example.com")
    if parts.username or parts.password:
        raise ConfigurationError("CLOISTER_URL must not carry a credential")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ConfigurationError("CLOISTER_URL must be https outside loopback")
    default_port = http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT
    return parts.scheme, parts.hostname, port or default_port, parts.path.rstrip("/")


class HttpTransport:
    """Keep-alive connections to one host, shared by threads, dropped on fork."""

    def __init__(self, url: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._scheme, self._host, self._port, self._prefix = split_url(url)
        self._context = ssl_context
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue(MAX_IDLE_CONNECTIONS)

    def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        """POST `body`; see `Transport`."""
        headers = {"Content-Type": content_type, "Accept": "application/jose, application/json"}
        try:
            connection, reused = self._idle.get_nowait(), True
        except queue.Empty:
            connection, reused = self._connect(), False
        while True:
            try:
                connection.timeout = timeout_seconds
                if connection.sock is not None:
                    connection.sock.settimeout(timeout_seconds)
                connection.request("POST", self._prefix + path, body, headers)
                reply = connection.getresponse()
                content = reply.read(MAX_RESPONSE_BYTES + 1)
                if len(content) > MAX_RESPONSE_BYTES:
                    raise TransportError("the response is too large")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not reused:
                    raise TransportError(type(error).__name__) from None
                # The server had closed the idle connection; the request is replay-safe.
                connection, reused = self._connect(), False
            except BaseException:
                connection.close()
                raise
            else:
                self._give_back(connection, will_close=reply.will_close)
                return Response(status=reply.status, body=content)

    def stream(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str,
        timeout_seconds: float,
        sink: Callable[[bytes], object],
    ) -> Response:
        """POST `body` on a connection of its own; see `StreamTransport`."""
        connection = self._connect()
        try:
            connection.timeout = timeout_seconds
            connection.request("POST", self._prefix + path, body, {"Content-Type": content_type})
            reply = connection.getresponse()
            if reply.status != http.HTTPStatus.OK:
                return Response(status=reply.status, body=reply.read(MAX_CLEAR_BYTES))
            while part := reply.read1(STREAM_BYTES):
                sink(part)
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(type(error).__name__) from None
        finally:
            connection.close()
        return Response(status=reply.status, body=b"")

    def close(self) -> None:
        """Close the idle connections."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    def _connect(self) -> http.client.HTTPConnection:
        if self._scheme == "http":
            return http.client.HTTPConnection(self._host, self._port)
        if self._context is None:
            self._context = ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, context=self._context)

    def _give_back(self, connection: http.client.HTTPConnection, *, will_close: bool) -> None:
        if will_close:
            connection.close()
            return
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()
