"""The system call filter, run by an interpreter for both architectures."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import pytest

from cloister_host.functions.sandbox.seccomp import ARCHITECTURES, program
from cloister_host.functions.sandbox.syscalls import ALLOWED, CONDITIONAL, SECCOMP
from support import bpf

TABLES = Path(__file__).parents[4] / "vectors" / "syscalls"
EPERM, ENOTTY = bpf.refused(errno.EPERM), bpf.refused(errno.ENOTTY)
I386, ARM = 0x4000_0003, 0x4000_0028

pytestmark = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


def table(machine: str) -> dict[str, int]:
    loaded: dict[str, int] = json.loads((TABLES / f"{machine}.json").read_text())
    return loaded


def call(machine: str, name: str, *arguments: int) -> int:
    architecture = ARCHITECTURES[machine]
    return bpf.run(
        program(machine), arch=architecture.audit, number=table(machine)[name], arguments=arguments
    )


def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    published, column = table(machine), ARCHITECTURES[machine].column
    ours = {**ALLOWED, **CONDITIONAL, "seccomp": SECCOMP}
    assert {name: numbers[column] for name, numbers in ours.items()} == {
        name: published.get(name) for name in ours
    }


def test_every_number_that_is_not_listed_is_refused(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    listed = {numbers[architecture.column] for numbers in (*ALLOWED.values(), *CONDITIONAL.values())}
    filtered = program(machine)
    for number in range(1 << 10):
        result = bpf.run(filtered, arch=architecture.audit, number=number)
        if number not in listed:
            assert result == EPERM, number
    for number in (1 << 20, 0x3FFF_FFFF):
        assert bpf.run(filtered, arch=architecture.audit, number=number) == EPERM


def test_everything_listed_is_allowed(machine: str) -> None:
    here = table(machine)
    assert all(call(machine, name) == bpf.ALLOW for name in ALLOWED if name in here)


@pytest.mark.parametrize("number", [0, 1, 57, 59, 221])
def test_another_architecture_ends_the_process(machine: str, number: int) -> None:
    others = {architecture.audit for name, architecture in ARCHITECTURES.items() if name != machine}
    for arch in (I386, ARM, 0, *others):
        assert bpf.run(program(machine), arch=arch, number=number) == bpf.KILL_PROCESS


@pytest.mark.parametrize("number", [0x4000_0000, 0x4000_0001, 0x4000_0208, 0xFFFF_FFFF, -1])
def test_x32_numbers_end_the_process_or_mean_nothing(machine: str, number: int) -> None:
    expected = bpf.KILL_PROCESS if machine == "x86_64" else EPERM
    assert bpf.run(program(machine), arch=ARCHITECTURES[machine].audit, number=number) == expected


@pytest.mark.parametrize(
    ("protection", "flags", "allowed"),
    [
        (3, 0x22, True),  # written, anonymous
        (1, 0x02, True),  # read, a file
        (5, 0x02, True),  # executed, a file: the mounts say which
        (4, 0x22, False),
        (5, 0x22, False),
        (7, 0x22, False),
        (6, 0x02, False),
        (7, 0x02, False),
        (7, 0x01, False),
        (1 << 32 | 7, 0x22, False),
    ],
)
def test_memory_is_never_written_and_executed(
    machine: str, protection: int, flags: int, allowed: bool
) -> None:
    assert call(machine, "mmap", 0, 4096, protection, flags) == (bpf.ALLOW if allowed else EPERM)


@pytest.mark.parametrize("protection", range(8))
def test_memory_is_not_made_executable(machine: str, protection: int) -> None:
    assert call(machine, "mprotect", 0, 4096, protection) == (EPERM if protection & 4 else bpf.ALLOW)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ioctl", (3, 0x5421), bpf.ALLOW),
        ("ioctl", (3, 0x5451), bpf.ALLOW),
        ("ioctl", (3, 0x5412), ENOTTY),  # TIOCSTI
        ("ioctl", (3, 0x541C), ENOTTY),  # TIOCLINUX
        ("fcntl", (3, 2, 1), bpf.ALLOW),
        ("fcntl", (3, 1030, 0), bpf.ALLOW),
        ("fcntl", (3, 8, 1), EPERM),  # F_SETOWN
        ("fcntl", (3, 10, 9), EPERM),  # F_SETSIG
        ("fcntl", (3, 1024, 0), EPERM),  # F_SETLEASE
        ("fcntl", (3, 1031, 1 << 20), EPERM),  # F_SETPIPE_SZ
        ("futex", (0, 128), bpf.ALLOW),
        ("futex", (0, 129 | 256), bpf.ALLOW),
        ("futex", (0, 6), EPERM),  # FUTEX_LOCK_PI
        ("futex", (0, 128 | 11), EPERM),  # FUTEX_WAIT_REQUEUE_PI
        ("madvise", (0, 4096, 4), bpf.ALLOW),
        ("madvise", (0, 4096, 12), EPERM),  # MADV_MERGEABLE
        ("madvise", (0, 4096, 100), EPERM),  # MADV_HWPOISON
        ("prlimit64", (0, 9, 0), bpf.ALLOW),
        ("prlimit64", (1, 9, 0), EPERM),
        ("prlimit64", (0, 9, 4096), EPERM),
        ("prlimit64", (0, 9, 1 << 32), EPERM),
    ],
)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert call(machine, name, *arguments) == expected


def test_the_program_is_one_that_the_kernel_loads(machine: str) -> None:
    filtered = program(machine)
    code = [struct.unpack_from("<HBBI", filtered, at) for at in range(0, len(filtered), 8)]
    # BPF_MAXINSNS; no jump leaves the program; the last instruction returns.
    assert len(code) <= 4096
    assert code[-1][0] == 0x06
    for at, (operation, then, otherwise, _) in enumerate(code):
        if operation & 7 == 5:
            assert at + 1 + max(then, otherwise) < len(code)


def test_there_is_none_for_other_architectures(machine: str) -> None:
    with pytest.raises(OSError, match="no system call filter"):
        program(machine.upper())
