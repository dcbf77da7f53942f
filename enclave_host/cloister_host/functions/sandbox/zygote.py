"""The zygote: a clean process that every worker of the `namespaces` level is forked from.

It is started by exec before the host has loaded any key, imports what workers need once, and leaves the
machine behind: own user, pid, network and mount namespaces, a root of its own with a read-only Python
tree, no /proc. It runs no tenant code and reads no bundle; that happens in the workers, each in namespaces
of its own. Two processes: a guard outside, and the zygote proper, which the guard starts again if it dies.

Arguments: descriptor of the control socket, pid of the host, layers to do without (comma-separated).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path
from typing import Final, NoReturn

import cloister
from cloister_host.functions.sandbox import linux
from cloister_host.functions.sandbox.harden import (
    die_with,
    die_with_parent,
    forgo_privileges,
    mapped_bytes,
)
from cloister_host.functions.sandbox.jail import Place, become_worker
from cloister_host.functions.sandbox.messages import MESSAGE_BYTES
from cloister_host.functions.sandbox.rehearse import fill_gaps, rehearse

_NOBODY: Final = 65534
_ROOT_BYTES: Final = 1 << 20
_ZONES: Final = "/usr/share/zoneinfo"
_NAMESPACES: Final = ("pid", "mnt", "net", "ipc", "uts", "cgroup")
_RESTART_LIMIT: Final = 1000

# Imported once here rather than in every worker; what is not there is not needed.
_PRELOAD: Final = (
    "base64 bisect collections.abc ctypes dataclasses datetime decimal difflib enum fractions functools "
    "hashlib heapq hmac io itertools json math operator random re statistics string struct textwrap typing "
    "unicodedata uuid zoneinfo numpy"
)


def main(control: socket.socket, host: int, without: Collection[str]) -> NoReturn:
    """Build the jail of the zygote, then fork workers until the host hangs up."""
    die_with(host)
    for name in _PRELOAD.split():
        with contextlib.suppress(ImportError):
            __import__(name)
    rehearse()
    # If memory runs out, workers go first (the host sees to it), then this, the host last.
    Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    user = _enter_user_namespace()
    # Not before: the files in /proc above belong to root once a process cannot be looked into.
    forgo_privileges()
    clone = linux.cloner(name for name in _NAMESPACES if name not in without)
    for _ in range(_RESTART_LIMIT):
        zygote = clone()
        if zygote == 0:
            _become_zygote(control, user=user, without=frozenset(without))
        # Whoever waited for a worker sees its socket close; the next request finds a new zygote.
        if os.waitstatus_to_exitcode(os.waitpid(zygote, 0)[1]) == 0:
            break
    os._exit(0)


def _become_zygote(control: socket.socket, *, user: int, without: frozenset[str]) -> NoReturn:
    try:
        # Pid 1 of its namespace: when it dies, for whatever reason, the kernel ends every worker.
        die_with_parent()
        mapped = mapped_bytes()
        devices = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        trees = _trees()
        scratch = _scratch(trees)
        _build_root(trees, scratch)
        place = Place(user=user, mapped=mapped, scratch=scratch, devices=devices, without=without)
        gc.collect()
        plugs = fill_gaps()
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _serve_spawns(control, place)
        del plugs
    except BaseException:  # noqa: BLE001 - the guard starts another; nothing else may run on here
        os._exit(1)
    os._exit(0)


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


def _serve_spawns(control: socket.socket, place: Place) -> None:
    """Do as little as possible: every page that is written here is no longer shared with the workers."""
    clone = linux.cloner(name for name in _NAMESPACES if name not in place.without)
    space = socket.CMSG_SPACE(8)
    while True:
        message, ancillary, _flags, _address = control.recvmsg(MESSAGE_BYTES, space)
        if not message:
            return
        channel, code = memoryview(ancillary[0][2]).cast("i")
        # A machine that has no process left is no reason to die: the host sees the socket close.
        try:
            if clone() == 0:
                become_worker(message, channel, code, place)
        except OSError:
            pass
        os.close(channel)
        os.close(code)


if __name__ == "__main__":
    control_descriptor, host_pid = map(int, sys.argv[1:3])
    left_out = [name for name in sys.argv[3].split(",") if name]
    del sys.argv[1:]
    main(socket.socket(fileno=control_descriptor), host_pid, left_out)
