"""Where a host is asked for keys, and the two requests that ask: `http(s)://...` or `unix:@name`.

What comes back is believed for its evidence alone, whoever answers. So no certificate is checked where a door
has TLS: a pod is asked at its address, for which no certificate is made.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from cloister.errors import AppraisalError, AttestationError, ConfigurationError, UnavailableError
from cloister.protocol.handover import Receiving
from cloister.protocol.handover_messages import MAX_GRANT_BYTES, HandedOver, Proof

__all__ = ["CLAIM", "HELLO", "RefusedError", "check_door", "receive"]

HELLO: Final = "/v1/peer/hello"
CLAIM: Final = "/v1/peer/claim"
TIMEOUT_SECONDS: Final = 5.0
MAX_DOOR_CHARS: Final = 256
_ABSTRACT: Final = "unix:@"
_OK: Final = 200
_REFUSED: Final = frozenset({400, 403})


class RefusedError(AppraisalError):
    """A host is there, and does not accept this one."""


def check_door(door: str) -> str:
    """Refuse what is no door.

    Raises:
        ConfigurationError: It is not a URL of a host, nor the name of a local socket.
    """
    if door.startswith(_ABSTRACT) and len(door) <= MAX_DOOR_CHARS:
        return door
    parts = urlsplit(door)
    try:
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if (
        not usable
        or parts.username
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or len(door) > MAX_DOOR_CHARS
    ):
        raise ConfigurationError("this is not the URL of a host", hint="for example http://10.0.0.5:8787")
    return door


def receive(
    door: str, receiving: Callable[[], Receiving], prove: Callable[[bytes, bytes], Proof], *, now: float
) -> HandedOver:
    """Ask one door, at each of its addresses until one gives.

    Args:
        door: As `check_door` accepts it.
        receiving: Begins a hand-over.
        prove: Makes evidence of this machine over (statement, nonce).
        now: Epoch seconds.

    Raises:
        RefusedError: A host is there, and refuses.
        AttestationError: Whoever is there is not a host of this deployment.
        UnavailableError: Nobody is there.
    """
    failure: Exception = UnavailableError("no peer answers there")
    for connection in _connections(door):
        try:
            side = receiving()
            statement, nonce = side.challenged(_post(connection, HELLO, side.hello), now=now)
            return side.accept(_post(connection, CLAIM, side.claim(prove(statement, nonce))))
        except AttestationError as error:
            failure = error
        except (OSError, http.client.HTTPException, UnavailableError):
            continue
        finally:
            connection.close()
    raise failure


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    content = reply.read(MAX_GRANT_BYTES + 1)
    if reply.status in _REFUSED:
        raise _refusal(content)
    if reply.status != _OK:
        raise UnavailableError("the peer does not answer")
    return content


def _refusal(content: bytes) -> RefusedError | UnavailableError:
    """What a host says in the clear is a hint for people, and shown to them alone."""
    try:
        problem = json.loads(content)
        title, hint = problem["title"], problem["hint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return UnavailableError("whoever answers there is not a host")
    if problem.get("code") != AppraisalError.code:
        return UnavailableError("the peer does not hand over now")
    return RefusedError(f"a peer refuses: {str(title)[:200]}", hint=str(hint)[:200])


def _connections(door: str) -> Iterator[http.client.HTTPConnection]:
    if door.startswith(_ABSTRACT):
        yield _UnixConnection(door.removeprefix(_ABSTRACT))
        return
    parts = urlsplit(check_door(door))
    host, secure = str(parts.hostname), parts.scheme == "https"
    port = parts.port or (http.client.HTTPS_PORT if secure else http.client.HTTP_PORT)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return
    for address in dict.fromkeys(str(entry[4][0]) for entry in found):
        yield _AddressConnection(host, address, port, secure=secure)


class _UnixConnection(http.client.HTTPConnection):
    """To an abstract socket of this machine (and of its network namespace)."""

    def __init__(self, name: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._name = name

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(f"\0{self._name}")


class _AddressConnection(http.client.HTTPConnection):
    """To one address of a name."""

    def __init__(self, host: str, address: str, port: int, *, secure: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS)
        self._address = address
        self._secure = secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._secure:
            # The evidence of both sides, and a seal to the key that it speaks of, do what TLS could not.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
