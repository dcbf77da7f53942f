"""Which system calls a worker may make: an allow list, everything else fails with EPERM (seccomp(2)).

What is absent matters: no socket (a network namespace does not cover AF_VSOCK), no clone, fork or execve,
no ptrace, io_uring, bpf, keyctl, memfd_create, mount, kill; no memory both written and executed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

__all__ = ["allow_listed_only", "program"]

_AUDIT_ARCH_X86_64: Final = 0xC000_003E
_X32_BIT: Final = 0x4000_0000
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _KILL = 0x7FFF_0000, 0x8000_0000
_EPERM, _ENOTTY = 0x0005_0001, 0x0005_0019
_SYS_SECCOMP: Final = 317
_SET_MODE_FILTER: Final = 1
_FILTER_FLAG_TSYNC: Final = 1

# x86-64 numbers. Files and memory, waiting, clocks, the one socket that is there already, and the end.
_ALLOWED: Final = {
    "read": 0,
    "write": 1,
    "open": 2,
    "close": 3,
    "stat": 4,
    "fstat": 5,
    "lstat": 6,
    "poll": 7,
    "lseek": 8,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pread64": 17,
    "pwrite64": 18,
    "readv": 19,
    "writev": 20,
    "access": 21,
    "select": 23,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "dup": 32,
    "nanosleep": 35,
    "getpid": 39,
    "sendto": 44,
    "recvfrom": 45,
    "exit": 60,
    "uname": 63,
    "fcntl": 72,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "getcwd": 79,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "unlink": 87,
    "readlink": 89,
    "gettimeofday": 96,
    "getrlimit": 97,
    "getrusage": 98,
    "sysinfo": 99,
    "times": 100,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "getppid": 110,
    "sigaltstack": 131,
    "gettid": 186,
    "time": 201,
    "futex": 202,
    "sched_getaffinity": 204,
    "getdents64": 217,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "epoll_wait": 232,
    "epoll_ctl": 233,
    "openat": 257,
    "mkdirat": 258,
    "newfstatat": 262,
    "unlinkat": 263,
    "renameat": 264,
    "readlinkat": 267,
    "faccessat": 269,
    "pselect6": 270,
    "ppoll": 271,
    "set_robust_list": 273,
    "epoll_create1": 291,
    "pipe2": 293,
    "getrandom": 318,
    "membarrier": 324,
    "statx": 332,
    "rseq": 334,
    "faccessat2": 439,
}
_MMAP, _MPROTECT, _IOCTL, _PRLIMIT64 = 9, 10, 16, 302
_PROT_WRITE, _PROT_EXEC, _MAP_ANONYMOUS = 2, 4, 0x20
_FIONBIO, _FIOCLEX = 0x5421, 0x5451


def _argument(index: int, *, high: bool = False) -> int:
    """Offset of an argument's lower (or upper) half in struct seccomp_data, little-endian."""
    return 16 + 8 * index + (4 if high else 0)


def _op(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, then, otherwise, value)


def _rule(number: int, *block: bytes) -> bytes:
    """For one system call: this block, which returns on every way through it."""
    return _op(_JUMP_EQ, number, otherwise=len(block)) + b"".join(block)


def program() -> bytes:
    """The filter as BPF instructions."""
    allow, refuse = _op(_RETURN, _ALLOW), _op(_RETURN, _EPERM)
    return b"".join(
        [
            # Another architecture's or x32's numbers mean other calls.
            _op(_LOAD, _ARCH),
            _op(_JUMP_EQ, _AUDIT_ARCH_X86_64, then=1),
            _op(_RETURN, _KILL),
            _op(_LOAD, _NUMBER),
            _op(_JUMP_GE, _X32_BIT, otherwise=1),
            _op(_RETURN, _KILL),
            # Executable memory comes from read-only files only: never anonymous, never writable.
            _rule(
                _MMAP,
                _op(_LOAD, _argument(2)),
                _op(_JUMP_SET, _PROT_EXEC, then=1),
                allow,
                _op(_JUMP_SET, _PROT_WRITE, then=3),
                _op(_LOAD, _argument(3)),
                _op(_JUMP_SET, _MAP_ANONYMOUS, then=1),
                allow,
                refuse,
            ),
            _rule(_MPROTECT, _op(_LOAD, _argument(2)), _op(_JUMP_SET, _PROT_EXEC, then=1), allow, refuse),
            # Blocking mode and close-on-exec, which Python sets; nothing of terminals or devices.
            _rule(
                _IOCTL,
                _op(_LOAD, _argument(1)),
                _op(_JUMP_EQ, _FIONBIO, then=1),
                _op(_JUMP_EQ, _FIOCLEX, otherwise=1),
                allow,
                _op(_RETURN, _ENOTTY),
            ),
            # Reading its own limits: no process but itself, no new limit.
            _rule(
                _PRLIMIT64,
                _op(_LOAD, _argument(0)),
                _op(_JUMP_EQ, 0, otherwise=5),
                _op(_LOAD, _argument(2)),
                _op(_JUMP_EQ, 0, otherwise=3),
                _op(_LOAD, _argument(2, high=True)),
                _op(_JUMP_EQ, 0, otherwise=1),
                allow,
                refuse,
            ),
            *(_rule(number, allow) for number in _ALLOWED.values()),
            refuse,
        ]
    )


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def allow_listed_only() -> None:
    """Load the filter; needs no_new_privs. It cannot be taken off again."""
    if os.uname().machine != "x86_64":
        raise OSError("no system call filter for this architecture")
    instructions = program()
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    loaded = _Program(len(instructions) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (_SYS_SECCOMP, _SET_MODE_FILTER, _FILTER_FLAG_TSYNC)
    if libc.syscall(*map(ctypes.c_long, arguments), ctypes.byref(loaded)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
