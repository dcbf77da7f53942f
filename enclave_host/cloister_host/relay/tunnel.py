"""HTTP CONNECT (RFC 9110, section 9.3.6): how an enclave asks its parent for a connection.

The parent learns names, ports, sizes and times. TLS runs between the enclave and the origin, so it reads and
changes nothing; an origin is known by its certificate, never by the address that the parent connects to.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Final

import h11

from cloister.errors import DeniedError, UnavailableError
from cloister_host.relay.endpoint import Endpoint, Stream
from cloister_host.relay.relay import Connect

__all__ = ["CONNECTED", "MAX_HEAD_BYTES", "NOT_ALLOWED", "TARGET", "open_tunnel", "tunnel"]

MAX_HEAD_BYTES: Final = 4096
CONNECTED: Final = 200
NOT_ALLOWED: Final = 403
TARGET: Final = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})"
)
"""What may be asked for: a name or an address, and a port."""


def tunnel(outbound: Endpoint, host: str, port: int) -> Connect:
    """Everything that comes in goes through the parent to one origin."""

    async def connect(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> Stream:
        reader, writer = await outbound.open()
        try:
            asking = _Asking(host, port)
            writer.write(asking.request)
            while not asking.told(await reader.read(MAX_HEAD_BYTES)):
                pass
            if asking.rest:
                raise UnavailableError("the parent answered more than it was asked")
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    return connect


def open_tunnel(outbound: Endpoint, host: str, port: int, timeout_seconds: float) -> socket.socket:
    """A connected socket to an origin, through the parent; blocking.

    Raises:
        OSError: The parent cannot be reached, or not in time.
        UnavailableError: It did not connect.
        DeniedError: It was not told to allow this origin.
    """
    found = outbound.connect(timeout_seconds)
    try:
        asking = _Asking(host, port)
        found.sendall(asking.request)
        # One byte at a time: what follows the answer belongs to the origin.
        while not asking.told(found.recv(1)):
            pass
    except BaseException:
        found.close()
        raise
    return found


class _Asking:
    """The enclave's side of the exchange, without I/O."""

    def __init__(self, host: str, port: int) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.request = (
            self._http.send(h11.Request(method="CONNECT", target=target, headers=[("Host", target)])) or b""
        )

    @property
    def rest(self) -> bytes:
        """What came after the answer."""
        return self._http.trailing_data[0]

    def told(self, data: bytes) -> bool:
        """Take what came; whether the tunnel is open now."""
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except (h11.RemoteProtocolError, RuntimeError):
            raise UnavailableError("the parent's answer is malformed") from None
        if event is h11.NEED_DATA:
            return False
        if not isinstance(event, h11.Response):
            raise UnavailableError("the parent hung up")
        if event.status_code == NOT_ALLOWED:
            raise DeniedError(
                "the parent does not let the enclave reach this origin", hint="cloister host parent --allow"
            )
        if event.status_code != CONNECTED:
            raise UnavailableError("the parent could not reach the origin", hint="retry later")
        return True
