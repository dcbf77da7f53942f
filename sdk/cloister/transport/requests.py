"""A transport over a `requests.Session` of the user's own: proxies, adapters, corporate trust stores."""

from __future__ import annotations

import requests

from cloister.transport import Response, TransportError
from cloister.transport.stdlib import split_url

__all__ = ["RequestsTransport"]


class RequestsTransport:
    """Carry sealed requests through a `requests.Session`."""

    def __init__(self, url: str, session: requests.Session | None = None) -> None:
        split_url(url)
        self._url = url.rstrip("/")
        self._session = session or requests.Session()

    def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        """POST `body`; see `Transport`."""
        try:
            reply = self._session.post(
                self._url + path,
                data=body,
                headers={"Content-Type": content_type},
                timeout=timeout_seconds,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise TransportError(type(error).__name__) from None
        return Response(status=reply.status_code, body=reply.content)

    def close(self) -> None:
        """Close the session's connections."""
        self._session.close()
