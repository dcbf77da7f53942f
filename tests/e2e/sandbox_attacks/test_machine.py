"""What of the machine a function can reach: nothing but its inputs, its code and a small empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.errors import FunctionError

from .conftest import Prison

pytestmark = pytest.mark.timeout(120)


# AF_UNSPEC to AF_MCTP and a few that no kernel has yet, AF_VSOCK (40) and AF_NETLINK (16) among them.
@pytest.mark.parametrize("family", range(50))
def test_no_socket_of_any_family(prison: Prison, family: int) -> None:
    body = f"return ' '.join(syscall(41, {family}, kind, 0) for kind in (1, 2, 3, 4, 5, 1 | 0o2000000))"
    assert set(str(prison.run(body)).split()) == {"EPERM"}
    assert prison.run(f"return syscall(53, {family}, 1, 0, 0)") == "EPERM"


# Numbers of x86-64.
CALLS = {
    "socketpair": 53,
    "connect": 42,
    "bind": 49,
    "accept": 43,
    "sendmsg": 46,
    "recvmsg": 47,
    "clone": 56,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "execveat": 322,
    "clone3": 435,
    "kill": 62,
    "tkill": 200,
    "tgkill": 234,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "process_madvise": 440,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "kcmp": 312,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "bpf": 321,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "memfd_create": 319,
    "memfd_secret": 447,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "chroot": 161,
    "fsopen": 430,
    "move_mount": 429,
    "open_tree": 428,
    "mount_setattr": 442,
    "unshare": 272,
    "setns": 308,
    "setuid": 105,
    "setresuid": 117,
    "capset": 126,
    "prctl": 157,
    "arch_prctl": 158,
    "seccomp": 317,
    "setrlimit": 160,
    "sched_setaffinity": 203,
    "sched_setscheduler": 144,
    "setpriority": 141,
    "personality": 135,
    "modify_ldt": 154,
    "ioperm": 173,
    "iopl": 172,
    "reboot": 169,
    "swapon": 167,
    "init_module": 175,
    "finit_module": 313,
    "kexec_load": 246,
    "settimeofday": 164,
    "clock_settime": 227,
    "syslog": 103,
    "quotactl": 179,
    "acct": 163,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "fanotify_init": 300,
    "inotify_init1": 294,
    "splice": 275,
    "vmsplice": 278,
    "shmget": 29,
    "semget": 64,
    "msgget": 68,
    "mq_open": 240,
    "timer_create": 222,
    "setitimer": 38,
    "alarm": 37,
    "symlink": 88,
    "link": 86,
    "mknod": 133,
    "chmod": 90,
    "chown": 92,
    "setxattr": 188,
    "pkey_mprotect": 329,
    "landlock_create_ruleset": 444,
    "openat2": 437,
    "copy_file_range": 326,
    "sendfile": 40,
    "sysinfo": 99,
    "membarrier": 324,
    "set_robust_list": 273,
    "get_robust_list": 274,
    "rseq": 334,
    "futex_waitv": 449,
    "process_mrelease": 448,
    "quotactl_fd": 443,
    "uselib": 134,
    "remap_file_pages": 216,
    "migrate_pages": 256,
    "move_pages": 279,
    "mbind": 237,
    "get_mempolicy": 239,
    "set_mempolicy": 238,
    "shmat": 30,
    "timerfd_create": 283,
    "eventfd2": 290,
    "signalfd4": 289,
    "tee": 276,
    "readahead": 187,
    "fadvise64": 221,
    "vhangup": 153,
    "sync": 162,
    "syncfs": 306,
    "sync_file_range": 277,
    "fallocate": 285,
    "utimensat": 280,
    "pidfd_send_signal": 424,
    "rt_sigqueueinfo": 129,
    "rt_tgsigqueueinfo": 297,
    "rt_sigtimedwait": 128,
    "wait4": 61,
    "waitid": 247,
    "getpriority": 140,
    "ioprio_set": 251,
    "set_tid_address": 218,
    "mlock": 149,
    "mlockall": 151,
    "mincore": 27,
    "preadv2": 327,
    "pwritev2": 328,
    "sendmmsg": 307,
    "recvmmsg": 299,
    "shutdown": 48,
    "getsockopt": 55,
    "setsockopt": 54,
    "getsockname": 51,
    "mknodat": 259,
    "symlinkat": 266,
    "linkat": 265,
    "renameat2": 316,
    "fchmod": 91,
    "fchown": 93,
    "flock": 73,
    "truncate": 76,
    "sethostname": 170,
    "setdomainname": 171,
    "setsid": 112,
    "setpgid": 109,
    "adjtimex": 159,
    "clock_adjtime": 305,
    "lookup_dcookie": 212,
    "io_setup": 206,
    "io_submit": 209,
    "mq_timedsend": 242,
    "semtimedop": 220,
    "nfsservctl": 180,
    "create_module": 174,
    "ustat": 136,
    "sysfs": 139,
    "getpmsg": 181,
    "afs_syscall": 183,
    "tuxcall": 184,
    "security": 185,
    "epoll_pwait2": 441,
    "close_range": 436,
    "fspick": 433,
    "fsmount": 432,
    "pkey_alloc": 330,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "map_shadow_stack": 453,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "mseal": 462,
}


@pytest.mark.parametrize("number", CALLS.values(), ids=CALLS)
def test_a_system_call_that_is_not_listed_fails(prison: Prison, number: int) -> None:
    assert prison.run(f"return syscall({number}, 0, 0, 0, 0, 0, 0)") == "EPERM"


@pytest.mark.parametrize("number", [0x4000_0000 | 1, 0x4000_0000 | 520])
def test_numbers_of_another_abi_end_the_worker(prison: Prison, number: int) -> None:
    with pytest.raises(Exception, match="process ended"):
        prison.run(f"return syscall({number}, 0, 0, 0)")


def test_thirty_two_bit_calls_end_the_worker(prison: Prison) -> None:
    """`int 0x80` stands somewhere in every large library, if only inside of other instructions."""
    body = """
import re
libc = ctypes.CDLL(None)
inward, outward = os.pipe()
os.set_blocking(outward, False)
start = ctypes.cast(libc.write, ctypes.c_void_p).value & ~0xfff
for page in range(start - (1 << 20), start + (1 << 20), 4096):
    if libc.write(outward, ctypes.c_void_p(page), ctypes.c_size_t(4096)) == 4096:
        place = os.read(inward, 4096).find(bytes([0xcd, 0x80]))
        if place >= 0:
            ctypes.CFUNCTYPE(ctypes.c_long)(page + place)()
return "nowhere"
"""
    said = "process ended"
    try:
        said = prison.run(body)
    except FunctionError as error:
        said = str(error)
    assert said == "nowhere" or "process ended" in said


def test_there_is_no_place_for_machine_code(prison: Prison) -> None:
    assert prison.run("return attempt(lambda: __import__('mmap').mmap(-1, 4096, prot=7))") == "EPERM"


@pytest.mark.parametrize("protection", [4, 5, 6, 7])
def test_no_anonymous_memory_is_executable(prison: Prison, protection: int) -> None:
    assert prison.run(f"return syscall(9, 0, 4096, {protection}, 0x22, -1, 0)") == "EPERM"


def test_no_memory_is_made_executable_afterwards(prison: Prison) -> None:
    body = """
import mmap
memory = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
return syscall(10, address, 4096, 5)
"""
    assert prison.run(body) == "EPERM"


def test_no_file_of_its_own_is_mapped_executable(prison: Prison) -> None:
    body = """
import mmap
open("x", "wb").write(bytes(4096))
file = os.open("x", os.O_RDONLY)
return attempt(lambda: mmap.mmap(file, 4096, flags=mmap.MAP_PRIVATE, prot=5))
"""
    assert prison.run(body) == "EPERM"


@pytest.mark.parametrize(
    "path",
    [
        "/proc",
        "/proc/self/mem",
        "/proc/1/environ",
        "/sys",
        "/dev/null",
        "/dev/nsm",
        "/etc/passwd",
        "/home",
    ],
)
def test_this_path_is_not_there(prison: Prison, path: str) -> None:
    assert prison.run(f"return attempt(lambda: os.open({path!r}, os.O_RDONLY))") == "ENOENT"


def test_nothing_lies_at_the_top_but_what_is_declared(prison: Prison) -> None:
    found = str(prison.run("return ' '.join(sorted(os.listdir('/')))")).split()
    tops = {Path(path).parts[1] for path in (sys.base_prefix, sys.prefix, os.path.realpath(__file__))}
    assert set(found) <= {"code", "tmp", "scratch", "usr", "lib", "lib64"} | tops


def test_the_hosts_files_are_not_below_the_python_tree(prison: Prison) -> None:
    assert prison.run(f"return attempt(lambda: open({__file__!r}).read())") == "ENOENT"
    assert prison.run(f"return attempt(lambda: os.listdir({str(Path.home())!r}))") in {
        "ENOENT",
        "gave ['.pyenv']",
    }


@pytest.mark.parametrize("path", ["/x", "/code/x", "/code/function.py", "/usr/lib/x", os.__file__])
def test_this_path_cannot_be_written(prison: Prison, path: str) -> None:
    flags = "os.O_WRONLY | os.O_CREAT"
    assert prison.run(f"return attempt(lambda: os.open({path!r}, {flags}))") in {"EROFS", "EACCES", "EPERM"}


@pytest.mark.parametrize(
    "action",
    [
        "os.symlink('/code', 'x')",
        "os.link('/code/function.py', 'x')",
        "os.rename('/code/function.py', 'x')",
        "os.rename('.', '/code/x')",
        "os.mkfifo('x')",
        "os.mknod('x', 0o600 | 0o20000, os.makedev(1, 1))",
        "os.chmod('.', 0o4777)",
        "os.chroot('.')",
        "os.open('../code/x', os.O_CREAT | os.O_WRONLY)",
        "os.open('x', os.O_CREAT | os.O_WRONLY, dir_fd=os.open('/code', os.O_RDONLY))",
        "os.execv('/lib64/ld-linux-x86-64.so.2', ['x'])",
        "os.unlink('/code/function.py')",
        "os.rmdir('/code')",
        "os.truncate('/code/function.py', 0)",
        "os.utime('/code/function.py')",
        "os.setxattr('.', 'user.x', b'y')",
    ],
)
def test_no_path_leads_out_of_its_folder(prison: Prison, action: str) -> None:
    assert prison.run(f"return attempt(lambda: {action})") in {"EPERM", "EROFS", "EACCES", "EXDEV"}


def test_above_the_root_is_the_root(prison: Prison) -> None:
    body = """
top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
for _ in range(9):
    top = os.open("..", os.O_RDONLY, dir_fd=top)
return str(sorted(os.listdir(top)) == sorted(os.listdir("/")))
"""
    assert prison.run(body) == "True"


def test_the_machine_has_no_name(prison: Prison) -> None:
    assert prison.run("return os.uname().nodename") == "function"


def test_its_own_folder_is_small_and_private(prison: Prison) -> None:
    fill = """
try:
    for number in range(64):
        open(f"{number}", "wb").write(bytes(1 << 20))
except OSError as error:
    return errno.errorcode[error.errno]
"""
    assert prison.run(fill) in {"ENOSPC", "EDQUOT"}
    write = 'open("mine", "w").write(value); return ",".join(os.listdir("."))'
    assert prison.run(write, principal="a") == "mine"
    assert prison.run('return ",".join(os.listdir("."))', principal="b") == ""


def test_too_many_files_are_refused(prison: Prison) -> None:
    body = """
try:
    for number in range(100_000):
        open(f"{number}", "wb").close()
except OSError as error:
    return errno.errorcode[error.errno]
"""
    assert prison.run(body) in {"ENOSPC", "EDQUOT"}


def test_nobody_else_is_in_sight(prison: Prison) -> None:
    assert prison.run("return repr((os.getpid(), os.getppid()))") == "(1, 0)"


def test_it_is_nobody_and_cannot_become_anybody(prison: Prison) -> None:
    expected = 65534 if os.getuid() == 0 else 0
    assert prison.run("return str(os.getuid())") == str(expected)
    for call in ("os.setuid(0)", "os.setgid(0)", "os.setgroups([0])", "os.setsid()"):
        assert prison.run(f"return attempt(lambda: {call})") == "EPERM"


def test_limits_cannot_be_raised(prison: Prison) -> None:
    raise_it = "import resource\nreturn attempt(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))"
    assert prison.run(raise_it) in {"EPERM", "ValueError"}


def test_no_descriptor_but_its_own_socket(prison: Prison) -> None:
    body = """
found = []
for number in range(1 << 16):
    try:
        found.append((number, oct(os.fstat(number).st_mode & 0o170000)))
    except OSError:
        pass
return repr(found)
"""
    kinds = [kind for _, kind in eval(str(prison.run(body)))]
    assert kinds == ["0o20000", "0o20000", "0o20000", "0o140000"]


def test_a_descriptor_of_the_zygote_or_host_is_not_among_what_it_holds(prison: Prison) -> None:
    # Its one socket leads to the host's channel; a second end cannot be received (no recvmsg).
    assert prison.run("return syscall(47, 3, 0, 0)") == "EPERM"


def test_the_environment_holds_nothing(prison: Prison) -> None:
    names = set(str(prison.run("return ' '.join(os.environ)")).split())
    assert names <= {"LC_CTYPE", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}


def test_numpy_works_inside(prison: Prison) -> None:
    body = "import numpy\nreturn str(int((numpy.arange(100.0).reshape(10, 10) @ numpy.ones(10)).sum()))"
    assert prison.run(body, memory_mib=256) == "4950"


def test_time_zones_and_hashes_work_inside(prison: Prison) -> None:
    body = (
        "import hashlib, zoneinfo\nreturn hashlib.sha256(b'').hexdigest()[:4] + zoneinfo.ZoneInfo('UTC').key"
    )
    assert prison.run(body) == "e3b0UTC"


def test_everything_ends_with_the_host() -> None:
    program = (
        "import os, time\n"
        "from cloister_host.functions.sandbox import Job\n"
        "from cloister_host.functions.sandbox.namespaces import NamespaceSandbox\n"
        "sandbox = NamespaceSandbox()\n"
        "worker = sandbox.start(Job(owner=('t', 'd'), files={}, memory_mib=16))\n"
        "print(worker.pid, sandbox._zygote.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    pids = host.stdout.readline().split()
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    host.kill()
    host.wait()
    host.stdout.close()
    import time

    for _ in range(500):
        if not any(_runs(pid) for pid in pids):
            return
        time.sleep(0.01)
    pytest.fail("a process outlived its host")


def _runs(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
