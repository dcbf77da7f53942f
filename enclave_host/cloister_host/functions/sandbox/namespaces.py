"""The `namespaces` level: workers with a kernel-made machine of their own and hardly any system calls.

The host asks the zygote for a worker and gets a descriptor of the process, by which it stops, resumes and
kills it; pids of other namespaces are never used.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.functions.sandbox import Job
from cloister_host.functions.sandbox.process import ENVIRONMENT
from cloister_host.functions.sandbox.zygote import MESSAGE_BYTES, Spawn, Spawned

__all__ = ["NamespaceSandbox"]

_SPAWN_SECONDS: Final = 20.0
_NAMESPACES: Final = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


class NamespaceSandbox:
    """Starts the zygote and proves the layers on this kernel with a first worker.

    Build it before any key is loaded: what is forked later never shared memory with one.

    Raises:
        ConfigurationError: This machine does not give a layer.
    """

    level: Final = "namespaces"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # PR_SET_PDEATHSIG follows the thread that forked, so that thread must live as long as the host.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_SPAWN_SECONDS)
        with theirs:
            self._zygote = self._spawner.submit(_start_zygote, theirs).result()
        try:
            self.layers: Final = self._prove()
        except (UnavailableError, OSError) as error:
            self.close()
            raise ConfigurationError(
                f"this machine does not give the sandbox for functions: {error}",
                hint="allow user namespaces, Landlock and seccomp, or accept the level `process` by name",
            ) from None

    def start(self, job: Job) -> JailedProcess:
        """Start a worker; it has not imported tenant code yet."""
        ours, theirs = socket.socketpair()
        code = os.memfd_create("code", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(code), "wb") as file:
                file.write(msgspec.msgpack.encode(dict(job.files)))
            os.lseek(code, 0, os.SEEK_SET)
            handle = self._spawn(Spawn(job.memory_mib), theirs.fileno(), code)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(code)
        process = JailedProcess(handle, ours)
        # Without privileges an undumpable process cannot be marked; it still goes before the host.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
        return process

    def close(self) -> None:
        """End the zygote, and with it every worker that is left."""
        self._control.close()
        self._zygote.kill()
        self._zygote.wait()
        self._spawner.shutdown()

    def _spawn(self, spawn: Spawn, *descriptors: int) -> int:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        with self._lock:
            try:
                self._control.sendmsg([msgspec.msgpack.encode(spawn)], rights)
                reply, received, _flags, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
            except OSError:
                # A late answer must not be taken for the answer to the next request.
                self._zygote.kill()
                raise UnavailableError("the sandbox does not answer", hint="restart the host") from None
        if not reply or not received:
            failed = msgspec.msgpack.decode(reply, type=Spawned).failed if reply else "the zygote ended"
            raise UnavailableError(f"no worker process could be started ({failed})", hint="retry later")
        return received[0]

    def _prove(self) -> tuple[str, ...]:
        """Let the kernel say from outside what holds for a worker."""
        worker = self.start(Job(owner=("", ""), files={}, memory_mib=16))
        try:
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii").splitlines()
                if ":\t" in line
            )
            missing = [
                name
                for name, holds in {
                    "seccomp": status["Seccomp"] == "2",
                    "no_new_privs": status["NoNewPrivs"] == "1",
                    "capabilities": all(int(status[c], 16) == 0 for c in ("CapEff", "CapPrm", "CapBnd")),
                    # In the host's namespace, the zygote's, and its own, where it is the first.
                    "pid": status["NSpid"].split()[-1] == "1" and len(status["NSpid"].split()) >= 3,  # noqa: PLR2004
                    **{name: worker.in_namespace_of_its_own(name) for name in _NAMESPACES},
                }.items()
                if not holds
            ]
        finally:
            worker.kill()
        if missing:
            raise OSError(", ".join(missing))
        return (
            *_NAMESPACES,
            "pivot_root",
            "landlock",
            "seccomp",
            "no_new_privs",
            "no_capabilities",
            "rlimits",
        )


class JailedProcess:
    """A worker started by `NamespaceSandbox`: the first process of its own pid namespace."""

    def __init__(self, handle: int, connection: socket.socket) -> None:
        self._handle = handle
        self._alive = True
        self._lock = threading.Lock()
        self.connection: Final = connection

    @property
    def pid(self) -> int:
        """Its number in the host's namespace, for looking at it in /proc."""
        about = Path(f"/proc/self/fdinfo/{self._handle}").read_text(encoding="ascii")
        return int(about.partition("Pid:")[2].split()[0])

    def in_namespace_of_its_own(self, name: str) -> bool:
        """Whether it is in another namespace than the host; true where the kernel does not show it."""
        try:
            return Path(f"/proc/{self.pid}/ns/{name}").readlink() != Path(f"/proc/self/ns/{name}").readlink()
        except PermissionError:
            # Without privileges an undumpable process cannot be looked into; unshare(2) raised no error.
            return True

    def pause(self) -> None:
        """Stop it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it; the kernel ends whatever else is in its pid namespace."""
        self._signal(signal.SIGKILL)
        with self._lock:
            if self._alive:
                self._alive = False
                os.close(self._handle)
                self.connection.close()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._alive:
                signal.pidfd_send_signal(self._handle, number)


def _start_zygote(control: socket.socket) -> subprocess.Popen[bytes]:
    command = ["-I", "-B", "-X", "utf8", "-m", "cloister_host.functions.sandbox.zygote"]
    return subprocess.Popen(  # noqa: S603 - constant program, our own arguments
        [sys.executable, *command, str(control.fileno()), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
        pass_fds=[control.fileno()],
        start_new_session=True,
    )
