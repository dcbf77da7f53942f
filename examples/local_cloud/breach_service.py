"""The third party of the SSN example: an API that knows which numbers were in a data breach.

    GET /v1/breached?page=1           the whole list, in pages, with an ETag
    GET /v1/ranges/{first 5 hex}      suffixes of SHA-256 digests that begin so, padded to one length

Both need the header `X-Api-Key`. The range endpoint follows the k-anonymity of Have I Been Pwned: a line
is `SUFFIX:COUNT` in upper case, and a count of 0 marks padding. A digest is of the nine digits.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from local_cloud.http_server import Disconnect, HttpServer, Request, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from local_cloud.ca import LocalCA

__all__ = ["BreachService", "Fault", "LoggedRequest", "load_numbers"]

PREFIX_HEX = 5
LINES_PER_RANGE = 16
SLOW_SECONDS = 0.5


class Fault(enum.Enum):
    """What can go wrong with a third party."""

    SERVER_ERROR = "500"
    TOO_MANY_REQUESTS = "429, Retry-After 1"
    TIMEOUT = "no answer until the client gives up or the service stops"
    RESET = "the connection is reset"
    GARBAGE = "200, and a body that is nothing"
    SLOW = "the right answer, half a second late"
    REDIRECT = "302 to another origin"
    REFLECT_KEY = "200, and the API key in the body"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request as the third party saw it; the key itself is not kept."""

    method: str
    target: str
    authorized: bool
    if_none_match: str
    status: int
    body: bytes


def load_numbers(path: Path) -> list[str]:
    """Read numbers, one a line, as nine digits each.

    Raises:
        ValueError: A line is no number.
    """
    numbers = [line.strip().replace("-", "") for line in path.read_text().splitlines() if line.strip()]
    if not all(re.fullmatch(r"[0-9]{9}", number) for number in numbers):
        raise ValueError(f"{path.name} holds a line that is no social security number")
    return numbers


class BreachService:
    """The service, over HTTPS.

    Args:
        numbers: Breached numbers of nine digits.
        ca: Issues its certificate.
        api_key: What callers must present.
        page_size: Numbers on a page of the list.
        host: The name in its certificate and `url`.
    """

    def __init__(
        self,
        numbers: Iterable[str],
        *,
        ca: LocalCA,
        api_key: str,
        page_size: int = 100,
        host: str = "localhost",
    ) -> None:
        self._numbers = sorted(set(numbers))
        self._api_key = api_key
        self._page_size = page_size
        self._faults: deque[Fault] = deque()
        self._closing = threading.Event()
        self.requests: list[LoggedRequest] = []
        self._server = HttpServer(self._serve, tls=ca.server_context(host), host=host)
        self.url = self._server.url

    def fail_next(self, fault: Fault, *, times: int = 1) -> None:
        """Let the next requests fail."""
        self._faults.extend([fault] * times)

    def publish(self, numbers: Iterable[str]) -> None:
        """Replace the list; its ETag changes with it."""
        self._numbers = sorted(set(numbers))

    def rotate_key(self, api_key: str) -> None:
        """Accept another key, and no longer the old one."""
        self._api_key = api_key

    def close(self) -> None:
        """Stop serving; requests held by `Fault.TIMEOUT` end without an answer."""
        self._closing.set()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, request: Request) -> Response:
        fault = self._faults.popleft() if self._faults else None
        key = request.headers.get("x-api-key", "")
        authorized = hmac.compare_digest(key.encode(), self._api_key.encode())
        response = self._faulty(fault, key) if fault else None
        if response is None and fault not in {Fault.TIMEOUT, Fault.RESET}:
            response = self._answer(request) if authorized else _problem(401, "the API key is not known")
        self.requests.append(
            LoggedRequest(
                method=request.method,
                target=request.target,
                authorized=authorized,
                if_none_match=request.headers.get("if-none-match", ""),
                status=response.status if response else 0,
                body=request.body,
            )
        )
        if response is None:
            raise Disconnect
        return response

    def _faulty(self, fault: Fault, key: str) -> Response | None:
        match fault:
            case Fault.SERVER_ERROR:
                return _problem(500, "something broke")
            case Fault.TOO_MANY_REQUESTS:
                return json_response({"title": "slow down"}, status=429, headers={"Retry-After": "1"})
            case Fault.TIMEOUT:
                self._closing.wait()
            case Fault.SLOW:
                self._closing.wait(SLOW_SECONDS)
            case Fault.GARBAGE:
                return Response(headers={"Content-Type": "application/json"}, body=b"\x00\xff{]" * 64)
            case Fault.REDIRECT:
                return Response(status=302, headers={"Location": "https://elsewhere.invalid/v1/breached"})
            case Fault.REFLECT_KEY:
                return json_response({"debug": {"x-api-key": key}})
            case Fault.RESET:
                pass
        return None

    def _answer(self, request: Request) -> Response:
        if request.method != "GET":
            return _problem(405, "only GET is known")
        if request.path == "/v1/breached":
            response = self._page(request.query.get("page", "1"))
        elif found := re.fullmatch(rf"/v1/ranges/([0-9A-Fa-f]{{{PREFIX_HEX}}})", request.path):
            response = self._range(found[1].upper())
        else:
            response = _problem(404, "there is nothing here")
        etag = response.headers.get("ETag")
        if etag and request.headers.get("if-none-match") == etag:
            return Response(status=304, headers={"ETag": etag})
        return response

    def _page(self, page: str) -> Response:
        pages = max(1, -(-len(self._numbers) // self._page_size))
        if not re.fullmatch(r"[1-9][0-9]{0,5}", page) or int(page) > pages:
            return _problem(404, "there is no such page")
        start = (int(page) - 1) * self._page_size
        items = self._numbers[start : start + self._page_size]
        return _tagged(json_response({"page": int(page), "pages": pages, "items": items}))

    def _range(self, prefix: str) -> Response:
        digests = (hashlib.sha256(number.encode()).hexdigest().upper() for number in self._numbers)
        lines = [f"{digest[PREFIX_HEX:]}:1" for digest in digests if digest.startswith(prefix)]
        lines += [f"{_padding(prefix, index)}:0" for index in range(LINES_PER_RANGE - len(lines))]
        body = "\r\n".join(sorted(lines)).encode()
        return _tagged(Response(headers={"Content-Type": "text/plain"}, body=body))


def _padding(prefix: str, index: int) -> str:
    return hashlib.sha256(f"padding {prefix} {index}".encode()).hexdigest().upper()[PREFIX_HEX:]


def _tagged(response: Response) -> Response:
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    headers = {**response.headers, "ETag": etag, "Cache-Control": "private, max-age=300"}
    return Response(status=response.status, headers=headers, body=response.body)


def _problem(status: int, title: str) -> Response:
    headers = {"Content-Type": "application/problem+json"}
    return json_response({"status": status, "title": title}, status=status, headers=headers)
