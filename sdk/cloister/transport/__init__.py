"""How bytes reach a host. A transport carries ciphertext; nothing it says is believed."""

from __future__ import annotations

from typing import Protocol

from cloister.protocol.session import Response

__all__ = ["AsyncTransport", "Response", "Transport", "TransportError"]


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
