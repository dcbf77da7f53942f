"""The self-test as seen from inside a worker: tries what each layer forbids, and says whether it failed.

It runs in a worker like any other, twice: behind every layer but the system call filter, which would hide
the others, and behind the filter too. An attempt counts only if it fails in the way that its layer makes it
fail; what works without a layer and fails with it is tried on both sides of the filter.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cloister_host.functions.sandbox import linux
from cloister_host.functions.sandbox.messages import Questions

__all__ = ["OPEN_PLACE", "before_the_filter", "behind_the_filter", "prepare"]

OPEN_PLACE: Final = Path("/code/open")
_NOBODY_MAPPED: Final = 4242
_PR_GET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 3, 39
_BEYOND_ANY_LIMIT: Final = 1 << 36
_MORE_FILES_THAN_ALLOWED: Final = 128

_libc = ctypes.CDLL(None, use_errno=True)


def prepare() -> None:
    """Mount a place that could be written, were it not for Landlock."""
    linux.mount_tmpfs(str(OPEN_PLACE), size_bytes=1 << 16, mode="777")


def before_the_filter(questions: Questions, scratch: str) -> dict[str, bool]:
    """Whether each layer holds by itself; `seccomp` says whether its attempts work without it."""
    attempts: dict[str, Callable[[], bool]] = {
        "user": lambda: _errno(lambda: os.setresuid(*[_NOBODY_MAPPED] * 3)) == errno.EINVAL,
        "mnt": lambda: (
            _errno(lambda: _touch("/code/x")) == errno.EROFS and _errno(lambda: _touch("/x")) == errno.EROFS
        ),
        "pid": lambda: os.getpid() == 1 and os.getppid() == 0 and _is_out_of_sight(questions.host),
        "net": lambda: _errno(lambda: _send(questions.port)) == errno.ENETUNREACH,
        "ipc": lambda: _shared_segment(questions.segment) == errno.ENOENT,
        "uts": lambda: os.uname().nodename != questions.host_name,
        "pivot_root": lambda: _sees_nothing(questions.marker, scratch),
        "landlock": lambda: _errno(lambda: _touch(f"{OPEN_PLACE}/x")) == errno.EACCES,
        "no_new_privs": lambda: _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        "no_capabilities": _is_powerless,
        "rlimits": _is_limited,
        "undumpable": lambda: _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0,
        "seccomp": lambda: all(_errno(attempt) is None for attempt in _FILTERED),
    }
    return {layer: _holds(attempt) for layer, attempt in attempts.items()}


def behind_the_filter(seen: dict[str, bool]) -> dict[str, bool]:
    """The same, with the filter: what worked before must fail now."""
    filtered = all(_errno(attempt) == errno.EPERM for attempt in (*_FILTERED, *_FILTERED_ONLY))
    return {**seen, "seccomp": seen["seccomp"] and filtered}


def _holds(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except Exception:  # noqa: BLE001 - whatever went wrong, nothing was proven
        return False


def _errno(attempt: Callable[[], object]) -> int | None:
    try:
        attempt()
    except OSError as error:
        return error.errno
    return None


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def _is_out_of_sight(process: int) -> bool:
    # Number 1 is itself here.
    return process == 1 or _errno(lambda: os.kill(process, 0)) == errno.ESRCH


def _send(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.sendto(b"self-test", ("127.0.0.1", port))


def _shared_segment(key: int) -> int | None:
    return ctypes.get_errno() if _libc.shmget(key, 1, 0) < 0 else None


def _sees_nothing(marker: str, scratch: str) -> bool:
    tops = {f"/{name}" for name in os.listdir("/")}  # noqa: PTH208 - names only
    return not Path(marker).exists() and "/proc" not in tops and {"/code", scratch} <= tops


def _is_powerless() -> bool:
    forbidden = (lambda: linux.set_host_name("x"), lambda: os.chroot("/"), lambda: os.nice(-1))
    return all(_errno(attempt) in {errno.EPERM, errno.EACCES} for attempt in forbidden)


def _is_limited() -> bool:
    descriptors: list[int] = []

    def hoard() -> None:
        for _ in range(_MORE_FILES_THAN_ALLOWED):
            descriptors.append(os.dup(0))  # noqa: PERF401 - what was opened must be closed though it fails

    files = _errno(hoard) == errno.EMFILE
    for descriptor in descriptors:
        os.close(descriptor)
    memory = _errno(lambda: mmap.mmap(-1, _BEYOND_ANY_LIMIT).close()) == errno.ENOMEM
    processes = resource.getrlimit(resource.RLIMIT_NPROC) == (0, 0)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        return files and memory and processes
    return False


def _socket_pair() -> None:
    for end in socket.socketpair():
        end.close()


def _executable_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


_FILTERED: Final[tuple[Callable[[], object], ...]] = (
    _socket_pair,
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    lambda: os.kill(os.getpid(), 0),
    lambda: os.close(os.memfd_create("x")),
    lambda: os.pidfd_open(os.getpid()),
    _executable_memory,
)
"""They work without the filter, and fail behind it."""

_FILTERED_ONLY: Final[tuple[Callable[[], object], ...]] = (
    os.fork,
    lambda: os.execv("/x", ["/x"]),  # noqa: S606 - an attempt
    os.setsid,
)
"""They fail for other reasons without the filter; behind it they do not get that far."""
