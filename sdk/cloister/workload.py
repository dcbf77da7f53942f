"""What the identities of all clouds keep: a token until it nears its end, an API key for some minutes.

A cloud's adapter says how one is fetched; here is when. Both serve threads, and both are dropped after a
fork and around a snapshot: a copy of this process asks for its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from cloister import jose
from cloister.envelope.process import on_drop
from cloister.errors import IdentityError, UnavailableError
from cloister.identity import ApiKey
from cloister.jose import strict_json
from cloister.secret import Secret

__all__ = ["Clock", "KeptKey", "KeptTokens", "TokenAndEnd", "token_and_end"]

MARGIN_SECONDS: Final = 60
"""A token this near its end is replaced."""
LAST_SECONDS: Final = 5
"""While its issuer does not answer, a token is used until this near its end."""
KEY_SECONDS: Final = 300
"""How long a stored API key is used before it is read again, so that a rotated one comes in."""
MAX_TOKEN_CHARS: Final = 16 * 1024
_PARTS: Final = 3

Clock = Callable[[], float]
TokenAndEnd = tuple[Secret, float]
"""A token, and when it ends, in epoch seconds."""


class KeptTokens:
    """The token for the audience that was asked for last.

    Args:
        fetch: Gets a new token for an audience. Raises `UnavailableError` where a later try may succeed.
        clock: Epoch seconds.
    """

    def __init__(self, fetch: Callable[[str], TokenAndEnd], *, clock: Clock = time.time) -> None:
        self._fetch = fetch
        self._clock = clock
        self.forget()
        on_drop(self)

    def forget(self) -> None:
        """Drop the token, and a lock that another thread may have held at a fork."""
        self._lock = threading.Lock()
        self._kept: dict[str, TokenAndEnd] = {}

    def get(self, audience: str) -> str:
        """A token for this audience; its issuer is asked by one thread at a time.

        Raises:
            CloisterError: As `fetch`.
        """
        with self._lock:
            kept = self._kept.get(audience)
            now = self._clock()
            if kept is None or now >= kept[1] - MARGIN_SECONDS:
                try:
                    kept = self._fetch(audience)
                except UnavailableError:
                    if kept is None or now >= kept[1] - LAST_SECONDS:
                        raise
                self._kept = {audience: kept}
            return kept[0].reveal().decode()


class KeptKey:
    """An API key that a cloud's secret store keeps.

    Args:
        read: Reads the secret's text. Raises `UnavailableError` where a later try may succeed.
        where: Names the store in errors, as "the secret in AWS".
        clock: Seconds from any start.
    """

    def __init__(self, read: Callable[[], str], *, where: str, clock: Clock = time.monotonic) -> None:
        self._read = read
        self._where = where
        self._clock = clock
        self.forget()
        on_drop(self)

    def forget(self) -> None:
        """Drop the key; see `KeptTokens.forget`."""
        self._lock = threading.Lock()
        self._kept: tuple[ApiKey, float] | None = None

    def get(self) -> ApiKey:
        """The key as it was read some minutes ago at most, or longer while its store does not answer.

        Raises:
            ConfigurationError: What is stored is no API key.
            CloisterError: As `read`.
        """
        with self._lock:
            now = self._clock()
            if self._kept is not None and now < self._kept[1]:
                return self._kept[0]
            try:
                key = ApiKey.parse(self._read(), where=self._where)
            except UnavailableError:
                if self._kept is None:
                    raise
                key = self._kept[0]
            self._kept = key, now + KEY_SECONDS
            return key


def token_and_end(text: str, *, audience: str) -> TokenAndEnd:
    """Take an issuer's answer for a token, if it is one for this audience.

    The signature is the host's to verify. What is read here only keeps an answer that is no token, or one
    for somebody else, from being sent.

    Raises:
        IdentityError: It is not.
    """
    token = text.strip()
    parts = token.split(".")
    claims: object = None
    if len(token) <= MAX_TOKEN_CHARS and token.isascii() and len(parts) == _PARTS:
        try:
            claims = strict_json.load_object(jose.b64url_decode(parts[1]))
        except ValueError:
            claims = None
    if not isinstance(claims, dict) or claims.get("aud") not in (audience, [audience]):
        raise IdentityError("what the cloud gave is no token for this deployment")
    end = claims.get("exp")
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise IdentityError("the cloud's token has no end")
    return Secret(token.encode()), float(end)
