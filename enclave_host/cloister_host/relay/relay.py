"""Carry bytes between two streams, which says nothing about what they are."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import structlog

from cloister.errors import CloisterError
from cloister_host.relay.endpoint import Endpoint, Stream

__all__ = ["Connect", "Relay", "relaying", "run", "to"]

Connect: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Stream]]
"""Finds the other end for a connection that came in; a `CloisterError` or an `OSError` ends it."""

MAX_CONNECTIONS: Final = 1024
CHUNK_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 600.0
CONNECT_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


def to(endpoint: Endpoint) -> Connect:
    """Everything that comes in goes to one place."""

    async def connect(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> Stream:
        return await endpoint.open()

    return connect


class Relay:
    """Listens, and carries what comes in to where `connect` says.

    Args:
        listener: A listening socket, which the relay closes in the end.
        connect: Finds the other end of each connection.
        max_connections: How many are carried at once; more are closed at once.
        idle_seconds: After so long without a byte in a direction that direction ends.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Connect,
        *,
        max_connections: int = MAX_CONNECTIONS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        self._carried: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_server(self._accepted, sock=self._listener)

    async def stop(self) -> None:
        """Accept no more, and end what is carried."""
        if self._server is not None:
            self._server.close()
        for task in self._carried:
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is handled in a task of its own"
        if len(self._carried) >= self._max_connections:
            writer.transport.abort()
            return
        self._carried.add(task)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                other = await self._connect(reader, writer)
            await self._carry_both((reader, writer), other)
        except (CloisterError, OSError, TimeoutError) as error:
            log.info("relay.ended", error=type(error).__name__)
        except asyncio.CancelledError:
            # The relay stops; a task that says it was cancelled would be reported as a failure.
            pass
        finally:
            self._carried.discard(task)
            writer.transport.abort()

    async def _carry_both(self, here: Stream, there: Stream) -> None:
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(here[0], there[1]))
                both.create_task(self._carry(there[0], here[1]))
        except* (OSError, TimeoutError):
            pass
        finally:
            # What was written is sent before the end; a reader that hangs does not keep us.
            for writer in (here[1], there[1]):
                writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await there[1].wait_closed()
                    await here[1].wait_closed()
            there[1].transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._idle_seconds):
                data = await reader.read(CHUNK_BYTES)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def run(relays: Sequence[Relay]) -> None:
    """Run relays until SIGINT or SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    for relay in relays:
        await relay.start()
    await ended.wait()
    for relay in relays:
        await relay.stop()


@contextmanager
def relaying(relays: Sequence[Relay]) -> Iterator[None]:
    """Run relays on a thread of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cloister-relay", daemon=True)
    thread.start()
    try:
        for relay in relays:
            asyncio.run_coroutine_threadsafe(relay.start(), loop).result()
        yield
    finally:
        for relay in relays:
            asyncio.run_coroutine_threadsafe(relay.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
