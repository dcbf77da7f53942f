"""How bytes reach a host. A transport carries ciphertext; nothing it says is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cloister.protocol.session import Response

__all__ = ["AsyncTransport", "Response", "StreamTransport", "Transport", "TransportError"]


class TransportError(Exception):
    """No HTTP response came: connection refused or lost, name not found, TLS failure or time-out."""


class Transport(Protocol):
    """Port: one HTTP POST.

    Raises:
        TransportError: No response came within `timeout_seconds`.
    """

    def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        """POST `body` to the host's URL followed by `path`."""
        ...


class StreamTransport(Transport, Protocol):
    """Port: a transport that hands long answers on as they arrive."""

    def stream(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str,
        timeout_seconds: float,
        sink: Callable[[bytes], object],
    ) -> Response:
        """As `post`; what an answer with status 200 brings goes into `sink`, and its body is empty.

        The time-out is between two pieces, not of the whole. An error of the sink ends the connection.
        """
        ...


class AsyncTransport(Protocol):
    """Port: one HTTP POST, for asyncio.

    Raises:
        TransportError: No response came within `timeout_seconds`.
    """

    async def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        """POST `body` to the host's URL followed by `path`."""
        ...

    async def aclose(self) -> None:
        """Close idle connections."""
        ...
