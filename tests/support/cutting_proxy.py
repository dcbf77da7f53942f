"""A TCP proxy that can be cut: what went through hangs, and nothing new comes in, as on a broken network."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CuttingProxy", "cutting_proxy"]


class CuttingProxy:
    """Passes connections on to a Unix socket, until it is cut.

    Attributes:
        port: Where it listens on loopback.
    """

    def __init__(self, target: str) -> None:
        self.port = 0
        self._target = target
        self._whole = threading.Event()
        self._whole.set()

    def cut(self) -> None:
        """Let no byte through, in either direction; connections stay open."""
        self._whole.clear()

    def heal(self) -> None:
        """Let everything through again."""
        self._whole.set()

    async def serve(self, started: threading.Event, ended: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await ended.wait()
        server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passable()
        try:
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._passable()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _passable(self) -> None:
        while not self._whole.is_set():  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.02)


@contextmanager
def cutting_proxy(target: str) -> Iterator[CuttingProxy]:
    """Run one in a thread of its own."""
    proxy, started = CuttingProxy(target), threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def run() -> None:
        await proxy.serve(started, ended)
        for task in asyncio.all_tasks(loop) - {asyncio.current_task(loop)}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(30)
    try:
        yield proxy
    finally:
        proxy.heal()
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
