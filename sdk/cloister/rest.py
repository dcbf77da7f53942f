"""One HTTP exchange with a cloud over the standard library: a cold start loads no HTTP library for it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["Answer", "get"]

TIMEOUT_SECONDS: Final = 5.0
ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.1
MAX_ANSWER_BYTES: Final = 256 * 1024
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""What a later try may not meet."""


class Answer(NamedTuple):
    """What came back, a refusal too."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(url: str, headers: Mapping[str, str], *, who: str, plain_http: bool = False) -> Answer:
    """GET, tried again a little later where that may help. Redirects are not followed, nor proxies asked.

    Args:
        url: https.
        headers: May carry a credential.
        who: Whom errors name, as "Google".
        plain_http: Allow http to any host: for metadata servers, which speak nothing else.

    Raises:
        ConfigurationError: The URL cannot be used.
        UnavailableError: Nothing came back, or nothing but errors that pass.
    """
    parts = urlsplit(url)
    allowed = plain_http or parts.hostname in LOOPBACK
    if not parts.hostname or parts.scheme not in ({"https", "http"} if allowed else {"https"}):
        raise ConfigurationError(f"the endpoint of {who} cannot be used", hint="it is an https URL")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2**attempt)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", target, headers=dict(headers))
            reply = connection.getresponse()
            body = reply.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            why = type(error).__name__
            continue
        finally:
            connection.close()
        if len(body) > MAX_ANSWER_BYTES:
            raise UnavailableError(f"the answer of {who} is too large", retryable=False)
        if reply.status not in PASSING:
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, body)
        why = str(reply.status)
    raise UnavailableError(f"{who} did not answer ({why})")
