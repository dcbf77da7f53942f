"""The kernel's part of the sandbox: namespaces, mounts, Landlock and capabilities, by way of ctypes.

Each function does one thing or raises OSError; nobody goes on with half a jail.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "bind_read_only",
    "bound_capabilities",
    "cloner",
    "drop_capabilities",
    "make_mounts_private",
    "map_users",
    "mount_tmpfs",
    "pivot",
    "restrict_paths",
    "seal_mounts",
    "set_host_name",
    "unshare",
]

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock: a cloned child must not have to wait for it.
_locked_libc = ctypes.PyDLL(None, use_errno=True)
_long = ctypes.c_long

# Flags of unshare(2) and clone3(2).
NAMESPACES: Final = {
    "mnt": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
# mount(2), mount_setattr(2); the numbers of system calls since 5.x are the same on every architecture.
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH: Final = 2
_SYS_CLONE3, _SYS_MOUNT_SETATTR = 435, 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET: Final = {"x86_64": 126, "aarch64": 91}
# Numbers and rights of landlock(7).
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1 << 1, 1 << 2, 1 << 3
_FS_REMOVE_DIR, _FS_REMOVE_FILE, _FS_MAKE_DIR, _FS_MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_FS_TRUNCATE: Final = 1 << 14
_READ: Final = _FS_READ_FILE | _FS_READ_DIR
_WRITE: Final = _FS_WRITE_FILE | _FS_REMOVE_DIR | _FS_REMOVE_FILE | _FS_MAKE_DIR | _FS_MAKE_REG
_ABI_REFER, _ABI_TRUNCATE, _ABI_NET, _ABI_IOCTL, _ABI_SCOPE = 2, 3, 4, 5, 6
# Options of prctl(2), version of capset(2).
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CAPABILITY_VERSION_3: Final = 0x2008_0522


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: object) -> int:
    converted = [_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _libc.syscall(_long(number), *converted)
    return result


def unshare(names: Iterable[str]) -> None:
    """Leave the namespaces of these kinds for new ones; `pid` holds for children only."""
    _check(_libc.unshare(sum(NAMESPACES[name] for name in names)), "unshare")


def cloner(names: Iterable[str]) -> Callable[[], int]:
    """Give a function that forks into new namespaces of these kinds; it returns 0 in the child.

    Not os.fork(): what Python and libc do after a fork touches half a megabyte that would no longer be
    shared with the other children. For a process with one thread only; the child has to seed generators
    of random numbers itself.
    """
    flags = sum(NAMESPACES[name] for name in names)
    # struct clone_args, version 0: flags, three descriptors and ids, the signal of its end, stack, tls.
    arguments = ctypes.create_string_buffer(struct.pack("=8Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
    number, size, call = _long(_SYS_CLONE3), _long(64), _locked_libc.syscall

    def clone() -> int:
        process: int = call(number, arguments, size)
        return process if process >= 0 else _check(process, "clone3")

    return clone


def set_host_name(name: str) -> None:
    """Name the machine, in this uts namespace."""
    text = name.encode()
    _check(_libc.sethostname(text, ctypes.c_size_t(len(text))), "sethostname")


def map_users(process: str, ranges: Sequence[tuple[int, int]]) -> None:
    """Say which users a new user namespace has: pairs of (inside, outside), one user each."""
    text = "".join(f"{inside} {outside} 1\n" for inside, outside in ranges)
    folder = Path("/proc") / process
    (folder / "setgroups").write_text("deny", encoding="ascii")
    (folder / "gid_map").write_text(text, encoding="ascii")
    (folder / "uid_map").write_text(text, encoding="ascii")


def mount_tmpfs(target: str, *, size_bytes: int, mode: str, executable: bool = False) -> None:
    """Mount an empty file system in memory; nothing on it can be executed unless that is said."""
    flags = _MS_NOSUID | _MS_NODEV | (0 if executable else _MS_NOEXEC)
    _mount("tmpfs", target, "tmpfs", flags, f"size={size_bytes},mode={mode},nr_inodes=4096")


def bind_read_only(source: str, target: str) -> None:
    """Show a folder, with everything below it, at another place, read-only."""
    _mount(source, target, None, _MS_BIND | _MS_REC)
    seal_mounts(target, executable=True)


def seal_mounts(target: str, *, executable: bool = False) -> None:
    """Make a mount and all below it read-only, without devices and set-user-id."""
    attributes = _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV | (0 if executable else _ATTR_NOEXEC)
    # Attributes are only added: flags that an outer namespace locked stay as they are.
    what = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0))
    path = ctypes.c_char_p(target.encode())
    _check(_syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, what, 32), f"mount_setattr {target}")


def make_mounts_private() -> None:
    """Let no mount made from here on show anywhere else."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def pivot(new_root: str) -> None:
    """Make a mounted folder the root, and let go of everything outside it."""
    os.chdir(new_root)
    here = ctypes.c_char_p(b".")
    _check(_syscall(_SYS_PIVOT_ROOT[os.uname().machine], here, here), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def restrict_paths(*, writable: Sequence[str]) -> int:
    """Read everywhere, write below `writable`, execute nowhere, no TCP (Landlock); gives its ABI."""
    abi = _check(_syscall(_SYS_LANDLOCK_CREATE, None, 0, 1), "landlock")
    handled = (1 << 13) - 1
    for since, bit in ((_ABI_REFER, 1 << 13), (_ABI_TRUNCATE, _FS_TRUNCATE), (_ABI_IOCTL, 1 << 15)):
        handled |= bit if abi >= since else 0
    # Bind and connect of TCP; signals and abstract sockets to the outside.
    attributes = struct.pack("=QQQ", handled, 3, 3)
    size = 8 if abi < _ABI_NET else 16 if abi < _ABI_SCOPE else 24
    ruleset = _check(_syscall(_SYS_LANDLOCK_CREATE, ctypes.c_char_p(attributes), size, 0), "landlock")
    try:
        for path, rights in (("/", _READ), *((path, _READ | _WRITE | _FS_TRUNCATE) for path in writable)):
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = ctypes.c_char_p(struct.pack("=Qi", rights & handled, parent))
                _check(_syscall(_SYS_LANDLOCK_ADD, ruleset, 1, rule, 0), "landlock")
            finally:
                os.close(parent)
        _check(_syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)
    return abi


def bound_capabilities() -> None:
    """Let no capability be gained later; needs those of the namespace, so it comes before giving them up."""
    capability = 0
    # Ends with EINVAL behind the last capability that this kernel knows.
    while _libc.prctl(_PR_CAPBSET_DROP, _long(capability), 0, 0, 0) == 0:
        capability += 1
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")


def drop_capabilities() -> None:
    """Give up every capability that is held."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)
    _check(_syscall(_SYS_CAPSET[os.uname().machine], header, nothing), "capset")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _check(result, f"mount {target}")
