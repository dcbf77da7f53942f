"""Runs a seccomp filter as the kernel would: classic BPF over struct seccomp_data (bpf(4), seccomp(2))."""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["ALLOW", "KILL_PROCESS", "refused", "run"]

ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000
_RETURN_ERRNO = 0x0005_0000


def refused(errno: int) -> int:
    """What a filter returns for a call that fails with this error."""
    return _RETURN_ERRNO | errno


def run(program: bytes, *, arch: int, number: int, arguments: Sequence[int] = ()) -> int:
    """Return what the filter returns for one call; refuses programs that the kernel would refuse."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number & 0xFFFF_FFFF, arch, 0, *(a & (1 << 64) - 1 for a in padded))
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(program) % 8 == 0
    assert 0 < len(code) <= 4096
    accumulator, at = 0, 0
    while True:
        # Falling off the end cannot be loaded.
        operation, then, otherwise, value = code[at]
        at += 1
        match operation:
            case 0x20:
                assert value % 4 == 0
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += then if accumulator == value else otherwise
            case 0x35:
                at += then if accumulator >= value else otherwise
            case 0x45:
                at += then if accumulator & value else otherwise
            case 0x06:
                return value
            case _:
                raise AssertionError(f"an instruction that is not used here: {operation:#x}")
