"""Makes forks of the zygote small and quick: what every worker does first is done here once, before.

A page that a fork writes to is no longer shared. So caches are filled, and gaps in the heap closed, while
there is one process only.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final

import msgspec

from cloister_host.functions.frames import Call, Channel, FromWorker, Load, Loaded, Returned, ToWorker
from cloister_host.functions.sandbox.messages import BUNDLE, SPAWN, Spawn
from cloister_host.functions.sandbox.worker import Server

__all__ = ["fill_gaps", "rehearse"]

_ROUNDS: Final = 12
_FOLDER: Final = Path(__file__).with_name("rehearsal")
_MODULE: Final = "rehearsed_function"
# CPython's allocator for small objects (Objects/obmalloc.c).
_POOL_BYTES: Final = 16 << 10
_POOL_HEADER_BYTES: Final = 48
_SMALL_BYTES: Final = range(48, 513, 16)
_BYTES_OVERHEAD: Final = 33
_MAX_PLUGS: Final = 20_000


def rehearse() -> None:
    """Load and call a function of our own the way that tenants' functions are."""
    ours, theirs = socket.socketpair()
    host, worker = Channel(ours, FromWorker), Channel(theirs, ToWorker)
    for _ in range(_ROUNDS):
        server = Server(worker, _FOLDER)
        host.send(Load(f"{_MODULE}:rehearsed", {}))
        server.answer()
        host.send(Call(1, {"given": {"text": "a", "number": 1}}))
        server.answer()
        if not isinstance(host.receive(), Loaded) or host.receive() != Returned(1, value=True):
            raise OSError("a function of our own does not run")
        SPAWN.decode(msgspec.msgpack.encode(Spawn(1)))
        BUNDLE.decode(msgspec.msgpack.encode({"a": b""}))
        del sys.modules[_MODULE]
        sys.path.remove(str(_FOLDER))
    host.close()
    worker.close()


def fill_gaps() -> list[object]:
    """Objects for every gap in the heap; while they live, new objects lie together on pages of their own."""
    plugs: list[object] = []
    for size in _SMALL_BYTES:
        adjacent, before = 0, 0
        for _ in range(_MAX_PLUGS):
            plug = bytes(size - _BYTES_OVERHEAD)
            plugs.append(plug)
            adjacent = adjacent + 1 if id(plug) - before == size else 0
            before = id(plug)
            # A whole pool without a gap: a new one.
            if adjacent >= (_POOL_BYTES - _POOL_HEADER_BYTES) // size - 1:
                break
    return plugs
