"""The `process` level: a clean process of its own, without privileges to gain, limits on what it uses.

Kept from tenant code: the host's memory, keys, descriptors and environment. Not kept: what the machine
shows to any process of this user (files, /proc, the network). The `namespaces` level takes those too;
this one is for machines whose kernel cannot, and has to be accepted by name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from cloister.errors import UnavailableError
from cloister_host.functions.sandbox import Job

__all__ = ["ENVIRONMENT", "ProcessSandbox"]

# One thread each: more would count against the memory limit, and deadlines are wall-clock time.
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ProcessSandbox:
    """Starts each worker by exec."""

    level: Final = "process"
    layers: Final = ("exec", "rlimits", "no_new_privs", "undumpable", "paused_between_calls")

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="cloister-"))
        # PR_SET_PDEATHSIG follows the thread that forked, so that thread must live as long as the host.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox")

    def start(self, job: Job) -> RunningProcess:
        """Start a worker; it has not imported tenant code yet."""
        try:
            return self._spawner.submit(self._start, job).result()
        except OSError:
            raise UnavailableError("no worker process could be started", hint="retry later") from None

    def close(self) -> None:
        """End the spawner and remove its folder; workers are killed by their owner."""
        self._spawner.shutdown()
        shutil.rmtree(self._root, ignore_errors=True)

    def _start(self, job: Job) -> RunningProcess:
        folder = Path(tempfile.mkdtemp(dir=self._root))
        ours, theirs = socket.socketpair()
        try:
            _unpack(job.files, folder / "code")
            (folder / "tmp").mkdir()
            arguments = [str(theirs.fileno()), str(folder / "code"), str(job.memory_mib), str(os.getpid())]
            popen = subprocess.Popen(  # noqa: S603 - constant program, our own arguments
                [
                    sys.executable,
                    "-I",
                    "-B",
                    "-X",
                    "utf8",
                    "-m",
                    "cloister_host.functions.sandbox.exec_worker",
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd=folder / "tmp",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            theirs.close()
        return RunningProcess(popen, ours, folder)


class RunningProcess:
    """A worker started by `ProcessSandbox`."""

    def __init__(self, popen: subprocess.Popen[bytes], connection: socket.socket, folder: Path) -> None:
        self._popen = popen
        self._folder = folder
        self.connection: Final = connection

    @property
    def pid(self) -> int:
        """Its number, and that of its session."""
        return self._popen.pid

    def pause(self) -> None:
        """Stop the worker's session."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the worker's session and remove its folder."""
        self._signal(signal.SIGKILL)
        self.connection.close()
        self._popen.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        # The pid is its own until it is waited for, so no other process can be hit.
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)


def _unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a bundle's members below `folder`, read-only; their names were checked when it was read."""
    folder.mkdir()
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o444)
