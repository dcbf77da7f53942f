"""The two endpoints at which another host of the deployment asks for keys (PROTOCOL 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cloister.errors import CloisterError
from cloister.protocol.handover_messages import MAX_MESSAGE_BYTES
from cloister_host.http.bodies import read_body
from cloister_host.http.problems import problem
from cloister_host.replicas.doors import CLAIM, HELLO
from cloister_host.replicas.giver import Giver

__all__ = ["peer_application", "peer_routes"]

AT_ONCE = 4


def peer_routes(giver: Giver) -> Sequence[BaseRoute]:
    """Routes for an application of one event loop."""
    # Evidence takes time on some machines; peers may not keep all of the host's threads waiting for it.
    limiter = anyio.CapacityLimiter(AT_ONCE)

    def answering(answer: Callable[[bytes], bytes]) -> Callable[[Request], object]:
        async def endpoint(request: Request) -> Response:
            try:
                body = await read_body(request, MAX_MESSAGE_BYTES)
                reply = await anyio.to_thread.run_sync(answer, body, limiter=limiter)
            except CloisterError as error:
                return problem(error)
            return Response(reply, media_type="application/json")

        return endpoint

    return (
        Route(HELLO, answering(giver.hello), methods=["POST"]),
        Route(CLAIM, answering(giver.claim), methods=["POST"]),
    )


def peer_application(giver: Giver) -> Starlette:
    """An application of these endpoints alone, for a socket of this machine."""
    return Starlette(routes=peer_routes(giver))
