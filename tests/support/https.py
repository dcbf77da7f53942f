"""A scriptable HTTPS server under a certificate authority of its own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

__all__ = ["Answered", "HttpsServer", "Received", "https_server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What to answer; `raw` replaces everything, byte for byte."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None


@dataclass
class HttpsServer:
    """A running server: set `answer`, read `received`."""

    port: int
    trust_anchor: bytes
    spki_sha256: str
    answer: Callable[[Received], Answered]
    client_pem: bytes = b""
    received: list[Received] = field(default_factory=list)


@contextmanager
def https_server(*names: str, mutual: bool = False) -> Iterator[HttpsServer]:
    """Serve on loopback with a certificate for `names`; `mutual` asks clients for one of this authority's."""
    authority = trustme.CA()
    certificate = authority.issue_cert(*names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    client = authority.issue_cert("client@example.com")
    server: HttpsServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (OSError, ssl.SSLError):
                self.close_connection = True

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(method=self.command, path=self.path, headers=headers, body=body)
            server.received.append(received)
            answered = server.answer(received)
            if answered.raw is not None:
                self.wfile.write(answered.raw)
                self.close_connection = True
                return
            self.send_response_only(answered.status)
            for name, value in {"content-length": str(len(answered.body)), **answered.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answered.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[ssl.SSLSocket, object]:
            connection, address = self.socket.accept()
            # The handshake belongs to the connection's own thread, not to the one that accepts.
            return (
                context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False),
                address,
            )

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    running = Server(("127.0.0.1", 0), Handler)
    server = HttpsServer(
        port=running.server_address[1],
        trust_anchor=authority.cert_pem.bytes(),
        spki_sha256=_spki(certificate.cert_chain_pems[0].bytes()),
        answer=lambda _received: Answered(body=b"{}"),
        client_pem=client.private_key_and_cert_chain_pem.bytes(),
    )
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def _spki(pem: bytes) -> str:
    import hashlib

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_pem_x509_certificate

    key = load_pem_x509_certificate(pem).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
