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
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.functions.sandbox import LAYERS, Job
from cloister_host.functions.sandbox.messages import READY, Questions, Spawn
from cloister_host.functions.sandbox.process import ENVIRONMENT
from cloister_host.functions.sandbox.proof import prove

__all__ = ["OPTIONAL", "NamespaceSandbox"]

_SPAWN_SECONDS: Final = 20.0
_PROBE_MIB: Final = 16
OPTIONAL: Final = frozenset({"net", "ipc", "uts", "cgroup", "landlock", "seccomp"})
"""Layers that a machine may lack if that was accepted by name; without the others there is no jail."""


class NamespaceSandbox:
    """Starts the zygote and proves the layers on this kernel with first workers (`proof`).

    Build it before any key is loaded: what is forked later never shared memory with one.

    Args:
        accepted_missing: Layers that may be missing on this machine; they are used where they are there.
        without: Layers to leave out, for showing that this is noticed.

    Raises:
        ConfigurationError: This machine does not give a layer.
    """

    level: Final = "namespaces"

    def __init__(
        self, accepted_missing: Collection[str] = frozenset(), *, without: Collection[str] = frozenset()
    ) -> None:
        if not OPTIONAL.issuperset(accepted_missing):
            raise ConfigurationError(
                "this layer of the sandbox cannot be done without",
                hint=f"layers that may be missing if named: {', '.join(sorted(OPTIONAL))}",
            )
        # PR_SET_PDEATHSIG follows the thread that forked, so that thread must live as long as the host.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox")
        try:
            self.layers: Final = self._open(frozenset(accepted_missing), frozenset(without))
        except BaseException:
            self._spawner.shutdown()
            raise

    def start(self, job: Job) -> JailedProcess:
        """Start a worker; it has not imported tenant code yet."""
        return self._start(job, None)

    def close(self) -> None:
        """End the zygote, and with it every worker that is left."""
        self._hang_up()
        self._spawner.shutdown()

    def _open(self, accepted: frozenset[str], without: frozenset[str]) -> tuple[str, ...]:
        """Start with every layer, or else with those that may not be missing; gives what is proven."""
        failed: Exception | None = None
        for left_out in dict.fromkeys((without, without | accepted)):
            self._call(left_out)
            try:
                proven = prove(lambda questions: self._start(_PROBE, questions))
                missing = set(LAYERS) - {*proven, *accepted}
                if not missing:
                    return proven
                failed = OSError(", ".join(sorted(missing)))
            except (UnavailableError, OSError) as error:
                failed = error
            self._hang_up()
        raise ConfigurationError(
            f"this machine does not give the sandbox for functions: {failed}",
            hint="allow user namespaces, Landlock and seccomp, or accept by name a layer that may be missing"
            " or the level `process`",
        )

    def _call(self, without: Collection[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_SPAWN_SECONDS)
        with theirs:
            self._zygote = self._spawner.submit(_start_zygote, theirs, without).result()

    def _hang_up(self) -> None:
        self._control.close()
        self._zygote.kill()
        self._zygote.wait()

    def _start(self, job: Job, questions: Questions | None) -> JailedProcess:
        ours, theirs = socket.socketpair()
        code = os.memfd_create("code", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(code), "wb") as file:
                file.write(msgspec.msgpack.encode(dict(job.files)))
            os.lseek(code, 0, os.SEEK_SET)
            spawn = msgspec.msgpack.encode(Spawn(job.memory_mib, questions))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno(), code]))]
            self._control.sendmsg([spawn], rights)
            theirs.close()
            process = JailedProcess(_receive_handle(ours), ours)
        except OSError:
            ours.close()
            raise UnavailableError(
                "no worker process could be started", hint="retry later; is there memory left?"
            ) from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(code)
        # Without privileges an undumpable process cannot be marked; it still goes before the host.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
        return process


_PROBE: Final = Job(owner=("", ""), files={}, memory_mib=_PROBE_MIB)


def _receive_handle(connection: socket.socket) -> int:
    """Wait until a worker stands behind every layer; gives the descriptor of its process."""
    connection.settimeout(_SPAWN_SECONDS)
    _message, received, _flags, _ = socket.recv_fds(connection, len(READY), 1)
    if not received:
        raise OSError("the worker was not started")
    try:
        # Only a worker whose every layer stands says this, and it has seen no tenant code yet.
        if connection.recv(len(READY)) != READY:
            raise OSError("a layer of the sandbox")
    except BaseException:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(received[0], signal.SIGKILL)
        os.close(received[0])
        raise
    connection.settimeout(None)
    return received[0]


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


def _start_zygote(control: socket.socket, without: Collection[str]) -> subprocess.Popen[bytes]:
    command = ["-I", "-B", "-X", "utf8", "-m", "cloister_host.functions.sandbox.zygote"]
    return subprocess.Popen(  # noqa: S603 - constant program, our own arguments
        [sys.executable, *command, str(control.fileno()), str(os.getpid()), ",".join(sorted(without))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
        pass_fds=[control.fileno()],
        start_new_session=True,
    )
