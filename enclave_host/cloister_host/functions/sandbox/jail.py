"""What a fork of the zygote does to itself before it is a worker: the last line is tenant code."""

from __future__ import annotations

import array
import os
import random
import resource
import signal
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from cloister_host.functions.sandbox import linux, probe
from cloister_host.functions.sandbox.harden import forgo_privileges, limit_resources
from cloister_host.functions.sandbox.messages import BUNDLE, READY, SPAWN
from cloister_host.functions.sandbox.seccomp import allow_listed_only
from cloister_host.functions.sandbox.worker import serve

__all__ = ["Place", "become_worker"]

_CODE: Final = "/code"
_HOST_NAME: Final = "function"
_TMP_BYTES: Final = 16 << 20
_CODE_SLACK_BYTES: Final = 8 << 20
_NICE: Final = 10
_NULL_DEVICE: Final = os.makedev(1, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where workers live.

    Attributes:
        user: Whom they become, in their user namespace; 0 means the host's own, without privileges.
        mapped: Bytes that the interpreter maps before any tenant code.
        scratch: The one folder they may write.
        devices: Descriptor of the machine's /dev; no worker keeps it.
        without: Layers that this machine lacks and that were accepted by name.
    """

    user: int
    mapped: int
    scratch: str
    devices: int
    without: frozenset[str]


def become_worker(message: bytes, channel: int, code: int, place: Place) -> NoReturn:
    """Give up everything, layer by layer; the last step is irreversible and then comes tenant code."""
    try:
        spawn = SPAWN.decode(message)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The fork was not Python's own, which would have seen to this.
        random.seed()
        if "uts" not in place.without:
            linux.set_host_name(_HOST_NAME)
        _unpack(code, place.scratch, probed=spawn.probe is not None)
        _close_all_but(channel, place.devices)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, channel)
        os.setsid()
        os.chdir(place.scratch)
        # Behind the host's own threads, whatever tenants do.
        os.nice(_NICE)
        linux.bound_capabilities()
        if place.user != 0:
            os.setresgid(place.user, place.user, place.user)
            os.setresuid(place.user, place.user, place.user)
        linux.drop_capabilities()
        forgo_privileges()
        limit_resources(memory_mib=spawn.memory_mib, mapped=place.mapped)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if "landlock" not in place.without:
            linux.restrict_paths(writable=[place.scratch])
        _hand_over(connection)
        seen = probe.before_the_filter(spawn.probe, place.scratch) if spawn.probe is not None else {}
        if "seccomp" not in place.without:
            allow_listed_only()
        connection.sendall(READY)
        if spawn.probe is not None:
            connection.sendall(msgspec.msgpack.encode(probe.behind_the_filter(seen)))
            os._exit(0)
        serve(connection, Path(_CODE))
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on
        os._exit(1)


def _unpack(code: int, scratch: str, *, probed: bool) -> None:
    # Plain calls instead of pathlib, here and below: a third of what a worker has for itself.
    files = BUNDLE.decode(os.read(code, os.fstat(code).st_size))
    size = sum(map(len, files.values())) + _CODE_SLACK_BYTES
    # Native libraries come with wheels; a bundle without them has nothing to execute.
    native = any(name.endswith(".so") or ".so." in name for name in files)
    linux.mount_tmpfs(_CODE, size_bytes=size, mode="755", executable=native)
    for name, content in files.items():
        target = f"{_CODE}/{name}"
        if "/" in name:
            os.makedirs(target.rpartition("/")[0], exist_ok=True)  # noqa: PTH103 - see above
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        unwritten = memoryview(content)
        while unwritten:
            unwritten = unwritten[os.write(descriptor, unwritten) :]
        os.close(descriptor)
    if probed:
        probe.OPEN_PLACE.mkdir()
    linux.seal_mounts(_CODE, executable=native)
    if probed:
        probe.prepare()
    linux.mount_tmpfs(scratch, size_bytes=_TMP_BYTES, mode="1777")


def _close_all_but(channel: int, devices: int) -> None:
    """Keep the channel and standard streams that no other process shares, be it for a file position."""
    null = os.open("null", os.O_RDWR, dir_fd=devices)
    about = os.fstat(null)
    if not stat.S_ISCHR(about.st_mode) or about.st_rdev != _NULL_DEVICE:
        raise OSError("/dev/null is something else")
    for stream in range(3):
        os.dup2(null, stream, inheritable=True)
    os.closerange(3, channel)
    os.closerange(channel + 1, 1 << 16)


def _hand_over(connection: socket.socket) -> None:
    """Give the host a descriptor of this process, by which it is stopped and killed."""
    handle = os.pidfd_open(os.getpid())
    connection.sendmsg([READY], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))])
    os.close(handle)
