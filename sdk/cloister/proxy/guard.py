"""Who may ask: whoever has the token, from this machine, and never a page in a browser.

A page anywhere on the web can make its reader's browser send requests to loopback, and by rebinding its own
name to 127.0.0.1 read the answers. Other users of the machine can connect as well. So every request shows
the token, names this proxy in `Host`, and carries none of the headers that only browsers send.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from cloister.proxy.problems import RefusedError
from cloister.secret import Secret

__all__ = ["Guard", "Headers", "host_names"]

Headers = Iterable[tuple[bytes, bytes]]

JSON_TYPES: Final = frozenset({"application/json", "application/json;charset=utf-8"})
FROM_BROWSERS: Final = ("origin", "sec-fetch-site", "access-control-request-method")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What every request has to show.

    Attributes:
        token: What `Authorization: Bearer` carries.
        hosts: What `Host` may say, in lower case.
    """

    token: Secret = field(repr=False)
    hosts: frozenset[str]

    def admit(self, headers: Headers, *, with_token: bool = True, with_json: bool = False) -> None:
        """Let a request through.

        Args:
            headers: As ASGI gives them, names in lower case.
            with_token: It has to show the token.
            with_json: It has to say that its body is JSON.

        Raises:
            RefusedError: What is wrong with it.
        """
        given = _Given(headers)
        # (1) It means this proxy, whatever name led to its address.
        if (given.one("host") or "").lower() not in self.hosts:
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "host",
                "the Host header names something else than this proxy",
                hint="use the address that the proxy printed, or name it: --host-name",
            )
        # (2) No page sent it.
        if any(given.has(name) for name in FROM_BROWSERS):
            raise RefusedError(HTTPStatus.FORBIDDEN, "browser", "requests from web pages are refused")
        # (3) It shows the token.
        if with_token and not self._knows(given.one("authorization")):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "token",
                "the request does not show the proxy's token",
                hint="Authorization: Bearer, with what is in the token file",
            )
        # (4) Its body is what it says; nothing is guessed.
        if with_json and (given.has("content-encoding") or not _is_json(given.one("content-type"))):
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "content-type",
                "the body has to be plain JSON",
                hint="Content-Type: application/json",
            )

    def _knows(self, authorization: str | None) -> bool:
        scheme, _, token = (authorization or "").partition(" ")
        shown = token.strip().encode("latin-1")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown, self.token.reveal())


def host_names(names: Collection[str], port: int | None) -> frozenset[str]:
    """What `Host` may say: each name with the port; without it too where the port is the usual one."""
    if port is None:
        return frozenset(name.lower() for name in names)
    with_port = {f"{name.lower()}:{port}" for name in names}
    return frozenset(with_port | ({name.lower() for name in names} if port == 80 else set()))  # noqa: PLR2004 (http)


class _Given:
    def __init__(self, headers: Headers) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in headers:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def has(self, name: str) -> bool:
        return name in self._values

    def one(self, name: str) -> str | None:
        """The value of a header that is there once; two are as good as none."""
        values = self._values.get(name, [])
        return values[0] if len(values) == 1 else None


def _is_json(content_type: str | None) -> bool:
    return (content_type or "").replace(" ", "").lower() in JSON_TYPES
