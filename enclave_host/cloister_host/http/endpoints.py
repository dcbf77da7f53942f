"""The host's few endpoints; everything but health, evidence, metrics and description is sealed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from cloister import jose
from cloister.errors import CloisterError, ConfigurationError, LimitError, UnavailableError
from cloister_host.fairness import Gate, Place
from cloister_host.http.bodies import read_body
from cloister_host.http.dispatch import Dispatcher, UnheldKeyError
from cloister_host.http.metrics import Metrics
from cloister_host.http.problems import problem
from cloister_host.http.requests import Opened
from cloister_host.keysets import KeysetManager

__all__ = ["Endpoints"]

log = structlog.get_logger(__name__)

JSON: Final = "application/json"
STREAM: Final = "application/vnd.cloister.stream"
MAX_CHALLENGE_BYTES: Final = 1024
NONCE_BYTES: Final = range(16, 65)
OPENED_AT_ONCE_CHARS: Final = 1 << 15

ResultT = TypeVar("ResultT")


class _Challenge(msgspec.Struct, forbid_unknown_fields=True):
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The host's HTTP surface.

    Attributes:
        readiness: Facts for `/readyz`, or an error that says why the host cannot serve.
        description: The API description, as JSON.
        max_request_bytes: Largest body of a sealed request.
        limiter: How many challenges are answered and large requests opened at once.
        gate: Lets opened requests be worked on, tenants in turn.
        threads: What they are worked on with; the gate says how many that are.
        peers: Where other hosts of the deployment ask for keys.
    """

    dispatcher: Dispatcher
    keysets: KeysetManager
    metrics: Metrics
    readiness: Callable[[], Mapping[str, Any]]
    description: bytes
    max_request_bytes: int
    limiter: anyio.CapacityLimiter
    gate: Gate
    threads: anyio.CapacityLimiter
    peers: Sequence[BaseRoute] = ()

    def application(self, *, lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]]) -> Starlette:
        """The ASGI application; `lifespan` starts and stops what runs beside it."""
        return Starlette(
            routes=[
                Route("/v1/sealed", self.sealed, methods=["POST"]),
                Route("/v1/attestation", self.attestation, methods=["POST"]),
                Route("/healthz", self.health),
                Route("/readyz", self.ready),
                Route("/metrics", self.measured),
                Route("/openapi.json", self.described),
                *self.peers,
            ],
            exception_handlers={Exception: _failed},
            lifespan=lifespan,
        )

    async def sealed(self, request: Request) -> Response:
        """`POST /v1/sealed`: the one door (PROTOCOL 6)."""
        with self.metrics.in_flight.track_inprogress():
            try:
                token = (await read_body(request, self.max_request_bytes)).decode("ascii")
                reply = await self._answer(await self._open(token))
            except UnicodeDecodeError:
                self.metrics.unopened()
                return problem(ConfigurationError("this is not a sealed request"))
            except CloisterError as error:
                self.metrics.unopened()
                return problem(error)
        if not isinstance(reply, str):
            return StreamingResponse(reply, media_type=STREAM)
        return Response(reply, media_type="application/jose")

    async def _open(self, token: str) -> Opened:
        # Quicker than handing it to a thread, unless another host has to be asked for the key.
        if len(token) <= OPENED_AT_ONCE_CHARS:
            with suppress(UnheldKeyError):
                return self.dispatcher.open(token, ask=False)
        return await anyio.to_thread.run_sync(self.dispatcher.open, token, limiter=self.limiter)

    async def _answer(self, opened: Opened) -> str | AsyncIterator[bytes]:
        try:
            async with self.gate.entered(opened.line) as place:
                reply = await _work(place, partial(self.dispatcher.answer, opened), self.threads)
        except LimitError as error:
            return self.dispatcher.turn_away(opened, error)
        return reply if isinstance(reply, str) else self._frames(opened.line, reply)

    async def _frames(self, line: str, frames: Iterator[bytes]) -> AsyncIterator[bytes]:
        """The frames of a stream, each in its tenant's turn."""
        while True:
            async with self.gate.entered(line, patient=True) as place:
                frame = await _work(place, partial(next, frames, None), self.threads)
            if frame is None:
                return
            yield frame

    async def attestation(self, request: Request) -> Response:
        """`POST /v1/attestation`: evidence over the keyset, for a fresh nonce."""
        try:
            nonce = _nonce(await read_body(request, MAX_CHALLENGE_BYTES))
            document = await anyio.to_thread.run_sync(self.keysets.document, nonce, limiter=self.limiter)
        except CloisterError as error:
            return problem(error)
        self.metrics.attested()
        return Response(msgspec.json.encode(document.to_json()), media_type=JSON)

    async def health(self, _request: Request) -> Response:
        """`GET /healthz`: the process is up."""
        return Response(b'{"status":"up"}', media_type=JSON)

    async def ready(self, _request: Request) -> Response:
        """`GET /readyz`: the host can serve, and with what."""
        try:
            facts = await anyio.to_thread.run_sync(self.readiness)
        except CloisterError as error:
            return problem(error)
        return Response(msgspec.json.encode(facts), media_type=JSON)

    async def measured(self, _request: Request) -> Response:
        """`GET /metrics`: Prometheus text."""
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4")

    async def described(self, _request: Request) -> Response:
        """`GET /openapi.json`: the API description."""
        return Response(self.description, media_type=JSON)


async def _work(place: Place, work: Callable[[], ResultT], threads: anyio.CapacityLimiter) -> ResultT:
    """Do the host's own work on a thread."""

    def held() -> ResultT:
        with place.held():
            return work()

    return await anyio.to_thread.run_sync(held, limiter=threads)


async def _failed(_request: Request, error: Exception) -> Response:
    log.error("endpoint.failed", error=type(error).__name__)
    return problem(UnavailableError("the host failed to answer", retryable=False))


def _nonce(body: bytes) -> bytes:
    try:
        nonce = jose.b64url_decode(msgspec.json.decode(body, type=_Challenge).nonce)
    except (msgspec.MsgspecError, ValueError, CloisterError):
        nonce = b""
    if len(nonce) not in NONCE_BYTES:
        raise ConfigurationError('the challenge must be {"nonce": "..."}: base64url of 16 to 64 bytes')
    return nonce
