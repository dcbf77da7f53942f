"""What a worker gives up before it sees tenant code, by way of prctl(2) and setrlimit(2)."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Final

__all__ = ["die_with", "die_with_parent", "forgo_privileges", "limit_resources", "mapped_bytes"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_FILES: Final = 64
_MAX_FILE_BYTES: Final = 16 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Be killed when the parent dies; leave at once if it is dead already."""
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def die_with_parent() -> None:
    """Be killed when the parent dies, from now on."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forgo_privileges() -> None:
    """Gain nothing by exec any more, and let nobody of this user attach or read the memory."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def limit_resources(*, memory_mib: int, mapped: int) -> None:
    """Bound memory beyond what was mapped before, descriptors, file sizes; no core dumps."""
    memory = mapped + (memory_mib << 20)
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def mapped_bytes() -> int:
    """What is mapped now; asked while there is a /proc."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
