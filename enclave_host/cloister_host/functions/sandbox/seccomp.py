"""Which system calls a worker may make: an allow list, everything else fails with EPERM (seccomp(2)).

The list is `syscalls.ALLOWED`; a few more calls are allowed for some arguments only. No memory is ever
both written and executed, and none is executed that is not a read-only file.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import Final

from cloister_host.functions.sandbox.syscalls import ALLOWED, CONDITIONAL, SECCOMP

__all__ = ["ARCHITECTURES", "Architecture", "allow_listed_only", "program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the filter has to know about one.

    Attributes:
        column: Its place in the tables of numbers.
        audit: AUDIT_ARCH_* of linux/audit.h; 32-bit calls on the same processor have another.
        foreign: Numbers from here on belong to another ABI (x32), if there is one.
    """

    column: int
    audit: int
    foreign: int | None = None


ARCHITECTURES: Final = {
    "x86_64": Architecture(column=0, audit=0xC000_003E, foreign=0x4000_0000),
    "aarch64": Architecture(column=1, audit=0xC000_00B7),
}

# Instructions of bpf(4) and the layout of struct seccomp_data, little-endian.
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _KILL_PROCESS, _EPERM, _ENOTTY = 0x7FFF_0000, 0x8000_0000, 0x0005_0001, 0x0005_0019
_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1

# Arguments; these constants are the same on both architectures.
_PROT_WRITE, _PROT_EXEC, _MAP_ANONYMOUS = 2, 4, 0x20
_FIONBIO, _FIOCLEX = 0x5421, 0x5451
_FCNTL: Final = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""Duplicate, flags, locks. No signal owners, leases, notifications, pipe sizes or seals."""
_FUTEX: Final = (0, 1, 3, 4, 5, 9, 10)
"""Wait, wake, requeue; nothing of priority inheritance."""
_FUTEX_COMMAND: Final = 0x7F
_MADVISE: Final = (0, 1, 2, 3, 4, 8, 14, 15)
"""Access patterns, giving back, huge pages. No merging of equal pages, which could be timed."""


def program(machine: str) -> bytes:
    """The filter as BPF instructions.

    Raises:
        OSError: There is none for this architecture.
    """
    architecture = ARCHITECTURES.get(machine)
    if architecture is None:
        raise OSError(f"no system call filter for {machine}")
    column = architecture.column

    def rule(name: str, *block: bytes) -> bytes:
        """For one system call: this block, which returns on every way through it."""
        number = {**ALLOWED, **CONDITIONAL}[name][column]
        return b"" if number is None else _op(_JUMP_EQ, number, otherwise=len(block)) + b"".join(block)

    allow, refuse, kill = _op(_RETURN, _ALLOW), _op(_RETURN, _EPERM), _op(_RETURN, _KILL_PROCESS)
    foreign = architecture.foreign
    return b"".join(
        [
            # Another architecture's or ABI's numbers mean other calls.
            _op(_LOAD, _ARCH),
            _op(_JUMP_EQ, architecture.audit, then=1),
            kill,
            _op(_LOAD, _NUMBER),
            b"" if foreign is None else _op(_JUMP_GE, foreign, otherwise=1) + kill,
            # Executable memory comes from read-only files only: never anonymous, never writable.
            rule(
                "mmap",
                _op(_LOAD, _argument(2)),
                _op(_JUMP_SET, _PROT_EXEC, then=1),
                allow,
                _op(_JUMP_SET, _PROT_WRITE, then=3),
                _op(_LOAD, _argument(3)),
                _op(_JUMP_SET, _MAP_ANONYMOUS, then=1),
                allow,
                refuse,
            ),
            rule("mprotect", _op(_LOAD, _argument(2)), _op(_JUMP_SET, _PROT_EXEC, then=1), allow, refuse),
            # Blocking mode and close-on-exec, which Python sets; nothing of terminals or devices.
            rule("ioctl", *_one_of(1, (_FIONBIO, _FIOCLEX), refusal=_ENOTTY)),
            rule("fcntl", *_one_of(1, _FCNTL)),
            rule("futex", *_one_of(1, _FUTEX, mask=_FUTEX_COMMAND)),
            rule("madvise", *_one_of(2, _MADVISE)),
            # Reading its own limits: no process but itself, no new limit.
            rule(
                "prlimit64",
                _op(_LOAD, _argument(0)),
                _op(_JUMP_EQ, 0, otherwise=5),
                _op(_LOAD, _argument(2)),
                _op(_JUMP_EQ, 0, otherwise=3),
                _op(_LOAD, _argument(2, high=True)),
                _op(_JUMP_EQ, 0, otherwise=1),
                allow,
                refuse,
            ),
            *(rule(name, allow) for name in ALLOWED),
            refuse,
        ]
    )


def allow_listed_only() -> None:
    """Load the filter; needs no_new_privs. It cannot be taken off again."""
    machine = os.uname().machine
    instructions = program(machine)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    loaded = _Program(len(instructions) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (SECCOMP[ARCHITECTURES[machine].column], _SET_MODE_FILTER, _FILTER_FLAG_TSYNC)
    if libc.syscall(*map(ctypes.c_long, arguments), ctypes.byref(loaded)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _argument(index: int, *, high: bool = False) -> int:
    """Offset of an argument's lower (or upper) half."""
    return 16 + 8 * index + (4 if high else 0)


def _op(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, then, otherwise, value)


def _one_of(
    argument: int, values: tuple[int, ...], *, mask: int | None = None, refusal: int = _EPERM
) -> list[bytes]:
    """Allow if an argument, of which the kernel reads 32 bits, is one of these."""
    return [
        _op(_LOAD, _argument(argument)),
        *([] if mask is None else [_op(_AND, mask)]),
        # Each jumps over the rest of the comparisons and the refusal.
        *(_op(_JUMP_EQ, value, then=len(values) - place) for place, value in enumerate(values)),
        _op(_RETURN, refusal),
        _op(_RETURN, _ALLOW),
    ]
