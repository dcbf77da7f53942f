"""The network under the HTTP client where there is none: through the parent of an enclave.

The parent resolves names, so the rules for addresses are its rules (`relay.tunnel.ParentProxy`); the control
stays what it always is, the name that the origin's certificate proves, and its pinned key.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Any, Final

import httpcore

from cloister_host.egress.addresses import check_addresses
from cloister_host.egress.network import CheckedStream, remaining
from cloister_host.relay.endpoint import Endpoint
from cloister_host.relay.tunnel import open_tunnel

__all__ = ["OutboundBackend"]

_CONNECT_SECONDS: Final = 30.0


class OutboundBackend(httpcore.NetworkBackend):
    """Connects to origins of one function through the parent.

    Args:
        outbound: Where the parent's proxy listens.
        allow_private: Whether origins that are addresses may be ones that are not public.
        pins: As in `CheckedBackend`.
    """

    def __init__(self, outbound: Endpoint, *, allow_private: bool, pins: tuple[str, ...]) -> None:
        self._outbound = outbound
        self._allow_private = allow_private
        self._pins = pins

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 (the base class names it)
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 (as above)
    ) -> httpcore.NetworkStream:
        """Ask the parent to connect."""
        with contextlib.suppress(ValueError):
            check_addresses([ipaddress.ip_address(host)], allow_private=self._allow_private)
        left = remaining(timeout or _CONNECT_SECONDS, httpcore.ConnectTimeout)
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            return CheckedStream(_SocketStream(open_tunnel(self._outbound, host, port, left)), self._pins)


class _SocketStream(httpcore.NetworkStream):
    """A blocking socket of any family."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError):
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            self._socket.settimeout(timeout)
            try:
                return _SocketStream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))
            except BaseException:
                self.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
            case "socket":
                return self._socket
            case "is_readable":
                # Nothing is asked of an idle connection: what there is to read means that it has ended.
                return self._socket.fileno() < 0 or _is_readable(self._socket)
            case _:
                return None


def _is_readable(connection: socket.socket) -> bool:
    import select  # noqa: PLC0415 (asked before a connection is used again)

    return bool(select.select([connection], [], [], 0)[0])


@contextlib.contextmanager
def _as_httpcore(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise timeout from None
    except OSError as error:
        raise failure(type(error).__name__) from None
