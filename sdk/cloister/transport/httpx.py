"""The transport of `AsyncClient`, over `httpx` (extra `async`)."""

from __future__ import annotations

import httpx

from cloister.transport import Response, TransportError
from cloister.transport.stdlib import split_url

__all__ = ["HttpxTransport"]


class HttpxTransport:
    """Carry sealed requests through an `httpx.AsyncClient`."""

    def __init__(self, url: str, client: httpx.AsyncClient | None = None) -> None:
        split_url(url)
        self._url = url.rstrip("/")
        self._client = client or httpx.AsyncClient(follow_redirects=False)

    async def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        """POST `body`; see `AsyncTransport`."""
        try:
            reply = await self._client.post(
                self._url + path,
                content=body,
                headers={"Content-Type": content_type},
                timeout=timeout_seconds,
            )
        except httpx.HTTPError as error:
            raise TransportError(type(error).__name__) from None
        return Response(status=reply.status_code, body=reply.content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
