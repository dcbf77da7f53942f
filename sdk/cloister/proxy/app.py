"""The proxy as an ASGI application: one request in, one operation of the client, one JSON answer."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from cloister import __version__
from cloister.client import Client
from cloister.errors import CloisterError
from cloister.proxy.guard import Guard
from cloister.proxy.messages import as_json, read_body
from cloister.proxy.operations import OPERATIONS, describe, find
from cloister.proxy.problems import RefusedError, problem_of

__all__ = ["Limits", "Proxy"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Log = Callable[[Mapping[str, Any]], None]

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"
CHECKS: Final = frozenset({"/healthz", "/v1/attestation", "/openapi.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the proxy takes.

    Attributes:
        max_body_bytes: Of one request.
        max_concurrent: Requests worked on at once; more are turned away, not queued.
        body_seconds: How long a body may take to come.
    """

    max_body_bytes: int = 16 * 1024 * 1024
    max_concurrent: int = 16
    body_seconds: float = 30.0


class Proxy:
    """Answer requests of programs on this machine with one client.

    Args:
        client: As whom everything is done.
        guard: Who may ask.
        limits: How much.
        log: Told of each request what it asked for, and how that ended; never what was in it.
    """

    def __init__(self, client: Client, guard: Guard, limits: Limits, log: Log) -> None:
        self._client = client
        self._guard = guard
        self._limits = limits
        self._log = log
        self._running = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id, started = secrets.token_hex(8), time.monotonic()
        status, code, content_type = HTTPStatus.OK, "", JSON
        try:
            answer = await self._answer(scope, receive)
            body = _encode(answer)
        except Exception as error:  # noqa: BLE001 (whatever it is, its text may carry what was sent)
            known = error if isinstance(error, (CloisterError, RefusedError)) else _failed()
            members = problem_of(known, request_id=request_id)
            status, code, content_type = HTTPStatus(members["status"]), members["code"], PROBLEM
            body = _encode(members)
        await _respond(send, status, content_type, body)
        self._log(
            {
                "event": "proxy.request",
                "operation": _operation_name(scope["path"]),
                "status": int(status),
                "code": code,
                "request_id": request_id,
                "milliseconds": round((time.monotonic() - started) * 1000, 1),
            }
        )

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> Mapping[str, Any]:
        method, path = scope["method"], scope["path"]
        is_check, is_health = path in CHECKS, path == "/healthz"
        self._guard.admit(scope["headers"], with_token=not is_health, with_json=not is_check)
        allowed = "GET" if is_check else "POST"
        if method != allowed:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "method", f"this takes {allowed} only")
        if scope["query_string"]:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "path", "there are no query parameters", hint="use the body"
            )
        if is_health:
            return {"status": "up"}
        if path == "/openapi.json":
            return describe(version=__version__)
        return await self._within_limit(scope, receive)

    async def _within_limit(self, scope: Mapping[str, Any], receive: Receive) -> Mapping[str, Any]:
        if self._running >= self._limits.max_concurrent:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "busy", "the proxy works on other requests", retryable=True
            )
        self._running += 1
        try:
            if scope["path"] == "/v1/attestation":
                return await _in_thread(self._attest)
            operation, in_path = find(scope["path"])
            raw = await self._body(scope, receive)
            return await _in_thread(lambda: operation.ask(self._client, read_body(raw), in_path=in_path))
        finally:
            self._running -= 1

    def _attest(self) -> Mapping[str, Any]:
        result = self._client.attest()
        keyset = result.keyset
        return {
            "deployment": keyset.deployment,
            "environment": result.environment,
            "keyset": keyset.digest,
            "expires": keyset.expires,
            "appraised_at": result.appraised_at.isoformat(),
            "configuration": as_json(keyset.config),
            "checks": list(result.checks),
            "not_checked": list(result.not_checked),
        }

    async def _body(self, scope: Mapping[str, Any], receive: Receive) -> bytes:
        too_large = RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too-large",
            "the body is too large",
            hint=f"at most {self._limits.max_body_bytes} bytes; seal files with `cloister object`",
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > self._limits.max_body_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise RefusedError(HTTPStatus.BAD_REQUEST, "body", "the body did not come whole")
                    body += message.get("body", b"")
                    if len(body) > self._limits.max_body_bytes:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "body", "the body took too long to come") from None


def _failed() -> RefusedError:
    return RefusedError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "failed",
        "the proxy failed to answer",
        hint="this is a defect; the log has its id",
    )


def _operation_name(path: str) -> str:
    """What a request asked for, as one of few names; never the path itself, which is the sender's text."""
    if path in CHECKS:
        return path
    name = path.removeprefix("/v1/").partition("/")[0]
    return name if name in OPERATIONS else "unknown"


def _encode(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=False, allow_nan=False, indent=2).encode() + b"\n"


async def _respond(send: Send, status: HTTPStatus, content_type: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _in_thread(work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Run it in a thread that does not keep the process from ending, as an executor's would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Mapping[str, Any]] = loop.create_future()

    def settle(result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        elif result is not None:
            done.set_result(result)

    def run() -> None:
        result: Mapping[str, Any] | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 (handed over, not dropped)
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="cloister-proxy", daemon=True).start()
    return await done
