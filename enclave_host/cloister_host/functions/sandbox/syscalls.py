"""Numbers of the system calls that workers may make, by name: (x86-64, AArch64).

From the kernel's own tables; None where an architecture never had the call. What is absent matters: no
socket (a network namespace does not cover AF_VSOCK), no clone, fork or execve, no ptrace, process_vm_readv,
pidfd_getfd, io_uring, bpf, keyctl, memfd_create, userfaultfd, mount, kill, sendmsg or recvmsg; nothing that
tells of the machine's other work (sysinfo).
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALLOWED", "CONDITIONAL", "SECCOMP"]

_Numbers = tuple[int | None, int | None]

ALLOWED: Final[dict[str, _Numbers]] = {
    # Files: those it may open are up to the mounts and Landlock.
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "open": (2, None),
    "openat": (257, 56),
    "close": (3, 57),
    "lseek": (8, 62),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents64": (217, 61),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "dup": (32, 23),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "rename": (82, None),
    "renameat": (264, 38),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "pipe2": (293, 59),
    # Memory that is not executable.
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    # Waiting and clocks.
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "restart_syscall": (219, 128),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    # Its own signals and itself.
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "uname": (63, 160),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # The one socket that is there.
    "sendto": (44, 206),
    "recvfrom": (45, 207),
}
"""Allowed whatever their arguments."""

CONDITIONAL: Final[dict[str, _Numbers]] = {
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "futex": (202, 98),
    "prlimit64": (302, 261),
}
"""Allowed for some arguments only."""

SECCOMP: Final[tuple[int, int]] = (317, 277)
"""Loads a filter; itself never allowed."""
