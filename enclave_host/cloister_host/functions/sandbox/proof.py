"""The self-test at start-up: proves each layer on this kernel, from inside a worker and from outside."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from cloister_host.functions.sandbox.messages import Questions

__all__ = ["NAMESPACES", "Probed", "prove"]

NAMESPACES: Final = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_ANSWER_BYTES: Final = 4096
_ANSWER_SECONDS: Final = 20
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_SEGMENT_BYTES: Final = 4096
_CAPABILITIES: Final = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")


class Probed(Protocol):
    """A worker that probes instead of serving."""

    @property
    def connection(self) -> socket.socket:
        """Where its answer comes."""
        ...

    @property
    def pid(self) -> int:
        """Its number in the host's pid namespace."""
        ...

    def in_namespace_of_its_own(self, name: str) -> bool:
        """Whether the kernel says so."""
        ...

    def pause(self) -> None:
        """Stop it."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


def prove(start: Callable[[Questions | None], Probed]) -> tuple[str, ...]:
    """Name the layers that hold: both the worker and the kernel have to say so.

    Args:
        start: Starts a worker that answers these questions, or one that waits.

    Raises:
        OSError: Nothing was answered.
    """
    with _laid_out() as questions:
        probing = start(questions)
        try:
            probing.connection.settimeout(_ANSWER_SECONDS)
            inside = msgspec.msgpack.decode(probing.connection.recv(_ANSWER_BYTES), type=dict[str, bool])
        except msgspec.DecodeError:
            raise OSError("the self-test in a worker gave no answer") from None
        finally:
            probing.kill()
    waiting = start(None)
    try:
        outside = _from_outside(waiting)
    finally:
        waiting.kill()
    return tuple(
        layer
        for layer in dict.fromkeys((*NAMESPACES, *inside))
        if inside.get(layer, True) and outside.get(layer, True)
    )


def _from_outside(worker: Probed) -> Mapping[str, bool]:
    """What the kernel says about a worker that waits for its first frame."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii").splitlines()
        if ":\t" in line
    )
    # In the host's namespace, the zygote's, and its own, where it is the first.
    pids = status["NSpid"].split()
    return {
        **{name: worker.in_namespace_of_its_own(name) for name in NAMESPACES},
        "pid": worker.in_namespace_of_its_own("pid") and pids[-1] == "1" and len(pids) > 2,  # noqa: PLR2004
        "seccomp": status["Seccomp"] == "2",
        "no_new_privs": status["NoNewPrivs"] == "1",
        "no_capabilities": all(int(status[name], 16) == 0 for name in _CAPABILITIES),
    }


@contextmanager
def _laid_out() -> Iterator[Questions]:
    """Things on this machine that every process can reach, unless something keeps it from them."""
    with (
        tempfile.NamedTemporaryFile(prefix="cloister-self-test-") as marker,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        _segment() as key,
    ):
        Path(marker.name).chmod(0o644)
        listening.bind(("127.0.0.1", 0))
        yield Questions(
            marker=marker.name,
            host=os.getpid(),
            port=listening.getsockname()[1],
            segment=key,
            host_name=os.uname().nodename,
        )


@contextmanager
def _segment() -> Iterator[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    key = secrets.randbelow(2**31 - 1) + 1
    number = libc.shmget(key, _SEGMENT_BYTES, _IPC_CREAT | 0o666)
    try:
        # Where the machine itself has none, the worker's answer is another one, and nothing is proven.
        yield key
    finally:
        if number >= 0:
            libc.shmctl(number, _IPC_RMID, None)
