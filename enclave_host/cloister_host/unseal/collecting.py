"""Wait for operators' shares, sealed to this enclave, before there is a root key to serve with.

Nothing else is served meanwhile. A share that arrives is opened in memory, known by its digest, and dropped
if it is of another root key; whoever reads this machine's network or disk sees ciphertext.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import structlog

from cloister import jose
from cloister.attestation.fetching import Fetched
from cloister.errors import CloisterError, ConfigurationError, OpenError, UnavailableError
from cloister.protocol.attest import AttestationDocument
from cloister.protocol.share import ALG, ShareInvitation, open_share, share_statement
from cloister_host.attester import Attester

__all__ = ["ShareCollector"]

log = structlog.get_logger(__name__)

MAX_BODY_BYTES: Final = 16 * 1024
MAX_NONCE_BYTES: Final = 64
TIMEOUT_SECONDS: Final = 10.0
_OK, _BAD, _MISSING, _TOO_LARGE, _UNAVAILABLE = 200, 400, 404, 413, 503

Recognise = Callable[[bytes], bytes | None]
"""Gives the digest of a share of this root key, and None for anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareCollector:
    """A door for shares, open until there are enough.

    Attributes:
        address: Address and port to listen on.
        attester: Proves what this machine is.
        endorsements: What comes beside its evidence.
        opened: Told the port once it listens.
    """

    address: str
    attester: Attester
    endorsements: Callable[[], Fetched]
    opened: Callable[[int], object] = lambda _port: None

    def collect(self, recognise: Recognise, need: int) -> list[bytes]:
        """Wait for enough different shares of this root key.

        Raises:
            ConfigurationError: The address is none, or cannot be listened on.
        """
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigurationError(
                "shares are collected at ADDRESS:PORT", hint="--unseal-option collect-shares=127.0.0.1:8787"
            )
        desk = _Desk(self, recognise, need)
        try:
            server = _Server((host.strip("[]"), int(port)), desk)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"shares cannot be collected at this address ({type(error).__name__})",
                hint=f"look at {self.address}",
            ) from None
        with server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                log.info("unseal.waiting", shares=need, port=server.server_port)
                self.opened(server.server_port)
                desk.enough.wait()
            finally:
                server.shutdown()
                thread.join()
        return desk.shares()


class _Desk:
    """What is answered to operators."""

    def __init__(self, collector: ShareCollector, recognise: Recognise, need: int) -> None:
        self.enough: Final = threading.Event()
        self._collector = collector
        self._recognise = recognise
        self._need = need
        # Made for this start; who records what is sent to it opens nothing later.
        self._key = jose.generate_key(ALG)
        self._shares: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def shares(self) -> list[bytes]:
        with self._lock:
            return list(self._shares.values())

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        acts = {"/v1/shares/challenge": self._invite, "/v1/shares": self._take}
        if path not in acts:
            return _MISSING, b'{"error": "this host waits for shares"}'
        try:
            return _OK, acts[path](body)
        except (ValueError, TypeError, LookupError, RecursionError):
            return _BAD, b'{"error": "malformed"}'
        except OpenError:
            return _BAD, b'{"error": "not sealed to this start of this host"}'
        except UnavailableError:
            return _UNAVAILABLE, b'{"error": "this machine does not attest now"}'
        except CloisterError as error:
            return _BAD, json.dumps({"error": error.args[0]}).encode()

    def _invite(self, body: bytes) -> bytes:
        nonce = jose.b64url_decode(json.loads(body)["nonce"])
        if not 0 < len(nonce) <= MAX_NONCE_BYTES:
            raise ValueError
        jwk = jose.public_jwk(self._key)
        attester, beside = self._collector.attester, self._collector.endorsements()
        document = AttestationDocument(
            format=str(attester.format),
            evidence=attester.evidence(statement=share_statement(jwk=jwk, nonce=nonce), nonce=nonce),
            keyset="",
            endorsements=tuple(beside.endorsements),
            collateral=beside.collateral,
        )
        return ShareInvitation(jwk=jwk, document=document).to_bytes()

    def _take(self, body: bytes) -> bytes:
        share = open_share(body.decode("ascii"), self._key)
        digest = self._recognise(share)
        if digest is None:
            raise ConfigurationError("it is no share of this root key")
        with self._lock:
            self._shares.setdefault(digest, share)
            have = len(self._shares)
        log.info("unseal.share_taken", have=have, need=self._need)
        if have >= self._need:
            self.enough.set()
        return json.dumps({"have": min(have, self._need), "need": self._need}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], desk: _Desk) -> None:
        self.desk: Final = desk
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks is nobody's news, and its traceback could hold a share."""


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_SECONDS
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._send(_TOO_LARGE, b'{"error": "too large"}')
            return
        self._send(*self.server.desk.answer(self.path, self.rfile.read(int(length))))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class names it)
        """What is logged stands above."""
