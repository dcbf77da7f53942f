"""The zygote: a clean process that every worker of the `namespaces` level is forked from.

It is started by exec before the host has loaded any key, imports what workers need once, and leaves the
machine behind: own user, pid, network and mount namespaces, a root of its own with a read-only Python
tree, no /proc. It runs no tenant code; that happens in the workers, each in namespaces of its own.

Arguments: descriptor of the control socket, pid of the host.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Final, NoReturn

import msgspec

import cloister
from cloister_host.functions.sandbox import linux
from cloister_host.functions.sandbox.harden import (
    die_with,
    die_with_parent,
    forgo_privileges,
    limit_resources,
    mapped_bytes,
)
from cloister_host.functions.sandbox.seccomp import allow_listed_only
from cloister_host.functions.sandbox.worker import serve

__all__ = ["Spawn", "Spawned"]

MESSAGE_BYTES: Final = 4096
_NOBODY: Final = 65534
_TMP_BYTES: Final = 16 << 20
_CODE_SLACK_BYTES: Final = 8 << 20
_ROOT_BYTES: Final = 1 << 20
_ZONES: Final = "/usr/share/zoneinfo"

# Imported once here rather than in every worker.
_PRELOAD: Final = (
    "base64 bisect collections.abc ctypes dataclasses datetime decimal difflib enum fractions functools "
    "hashlib heapq hmac io itertools json math operator random re statistics string struct textwrap typing "
    "unicodedata uuid zoneinfo"
)


class Spawn(msgspec.Struct, frozen=True):
    """To the zygote, with two descriptors: the worker's socket and a file with the code."""

    memory_mib: int


class Spawned(msgspec.Struct, frozen=True):
    """From the zygote, with a descriptor of the process; or what failed, and nothing runs."""

    failed: str = ""


def main(control: socket.socket, host: int) -> None:
    """Build the jail of the zygote, then fork workers until the host hangs up."""
    die_with(host)
    for name in _PRELOAD.split():
        __import__(name)
    # If memory runs out, workers go first (the host sees to it), then this, the host last.
    Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    user = _enter_user_namespace()
    linux.unshare(["pid", "mnt", "net", "ipc", "uts", "cgroup"])
    # Not before: the files in /proc above belong to root once a process cannot be looked into.
    forgo_privileges()
    inner = os.fork()
    if inner:
        control.close()
        os.waitpid(inner, 0)
        os._exit(0)
    # Pid 1 of its namespace: when it dies, for whatever reason, the kernel ends every worker.
    die_with_parent()
    mapped = mapped_bytes()
    trees = _trees()
    scratch = _scratch(trees)
    _build_root(trees, scratch)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _serve_spawns(control, user=user, mapped=mapped, scratch=scratch)


def _enter_user_namespace() -> int:
    """Enter a user namespace with root for building jails; gives the user that workers become there."""
    outside = os.getuid()
    if outside != 0:
        linux.unshare(["user"])
        linux.map_users("self", [(0, outside)])
        return 0
    os.setgroups([])
    ours, theirs = socket.socketpair()
    helper = os.fork()
    if helper == 0:
        # Only a process outside may map a second user: an unprivileged one for the workers.
        with contextlib.suppress(BaseException):
            theirs.recv(1)
            linux.map_users(str(os.getppid()), [(0, 0), (_NOBODY, _NOBODY)])
            os._exit(0)
        os._exit(1)
    linux.unshare(["user"])
    ours.send(b"1")
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError("the users of the namespace could not be mapped")
    ours.close()
    theirs.close()
    return _NOBODY


def _build_root(trees: list[str], scratch: str) -> None:
    """A root with the Python tree, read-only, and two empty places for workers to mount on."""
    linux.make_mounts_private()
    # Only a place to mount on, in a mount namespace of our own: it is always there, and holds no tree.
    root = "/proc"
    linux.mount_tmpfs(root, size_bytes=_ROOT_BYTES, mode="755")
    for path in trees:
        target = root + path
        Path(target).mkdir(parents=True, exist_ok=True)
        linux.bind_read_only(path, target)
    for link in ("/lib", "/lib64"):
        if Path(link).is_symlink():
            (Path(root) / link[1:]).symlink_to(Path(link).readlink())
    for place in ("/code", scratch):
        Path(root + place).mkdir()
    linux.pivot(root)
    linux.seal_mounts("/", executable=True)


def _trees() -> list[str]:
    """Folders that tenant code may read: the interpreter's libraries, and the system's for them."""
    paths = sysconfig.get_paths()
    wanted = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    wanted.add(str(Path(sys.base_prefix) / "lib"))
    wanted.add(str(Path(str(cloister.__file__)).parent))
    wanted |= {_ZONES, "/lib64", f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"}
    present = sorted(path for path in wanted if Path(path).is_dir() and not Path(path).is_symlink())
    # A folder inside another one is there with it.
    return [p for p in present if not any(p != q and Path(p).is_relative_to(q) for q in present)]


def _scratch(trees: list[str]) -> str:
    """Where a worker may write: `/tmp`, unless the Python tree itself lies below it."""
    below = any(Path(tree).is_relative_to("/tmp") for tree in trees)  # noqa: S108 - a place in the jail
    return "/scratch" if below else "/tmp"  # noqa: S108 - the worker's own


def _serve_spawns(control: socket.socket, *, user: int, mapped: int, scratch: str) -> NoReturn:
    while True:
        message, ancillary, _flags, _address = control.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(8))
        if not message:
            os._exit(0)
        descriptors = array.array("i", ancillary[0][2])
        spawn = msgspec.msgpack.decode(message, type=Spawn)
        if os.fork() == 0:
            _start_worker(
                control, spawn, descriptors[0], descriptors[1], user=user, mapped=mapped, scratch=scratch
            )
        for descriptor in descriptors:
            os.close(descriptor)


def _start_worker(
    control: socket.socket, spawn: Spawn, channel: int, code: int, *, user: int, mapped: int, scratch: str
) -> NoReturn:
    """In a child of the zygote: build the worker's namespaces, fork it as their first process, report it."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        linux.unshare(["mnt", "pid", "net", "ipc", "uts", "cgroup"])
        _unpack(code, scratch)
        os.close(code)
        ready, starting = os.pipe()
        worker = os.fork()
        if worker == 0:
            control.close()
            os.close(ready)
            _become_worker(starting, channel, spawn, user=user, mapped=mapped, scratch=scratch)
        os.close(starting)
        handle = os.pidfd_open(worker)
        # Only a worker whose every layer stands is reported.
        failed = b"" if os.read(ready, 1) == b"1" else b"a layer of the sandbox"
        reply = msgspec.msgpack.encode(Spawned(failed.decode()))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
        control.sendmsg([reply], rights if not failed else [])
    except BaseException as error:  # noqa: BLE001 - the host must hear of it whatever it is
        with contextlib.suppress(OSError):
            control.send(msgspec.msgpack.encode(Spawned(str(error)[:200] or type(error).__name__)))
        os._exit(1)
    os._exit(0)


def _unpack(code: int, scratch: str) -> None:
    with os.fdopen(os.dup(code), "rb") as file:
        files = msgspec.msgpack.decode(file.read(), type=dict[str, bytes])
    size = sum(map(len, files.values())) + _CODE_SLACK_BYTES
    linux.mount_tmpfs("/code", size_bytes=size, mode="755")
    for name, content in files.items():
        target = Path("/code") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    linux.seal_mounts("/code")
    linux.mount_tmpfs(scratch, size_bytes=_TMP_BYTES, mode="1777")


def _become_worker(
    starting: int, channel: int, spawn: Spawn, *, user: int, mapped: int, scratch: str
) -> NoReturn:
    """Give up everything, layer by layer; the last step is irreversible and the next line is tenant code."""
    try:
        os.setsid()
        os.chdir(scratch)
        keep = sorted((starting, channel))
        for low, high in zip([2, *keep], [*keep, 1 << 16], strict=True):
            os.closerange(low + 1, high)
        linux.bound_capabilities()
        if user != 0:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        linux.drop_capabilities()
        forgo_privileges()
        limit_resources(memory_mib=spawn.memory_mib, mapped=mapped)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        linux.restrict_paths(writable=[scratch])
        allow_listed_only()
        os.write(starting, b"1")
        os.close(starting)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, channel)
        serve(connection, Path("/code"))
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on
        os._exit(1)


if __name__ == "__main__":
    control_descriptor, host_pid = map(int, sys.argv[1:])
    del sys.argv[1:]
    main(socket.socket(fileno=control_descriptor), host_pid)
