"""A program run beside the test: its output kept, its end certain."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Process", "clean_environment"]

STOP_SECONDS = 10.0
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The few variables a program needs, and nothing a developer's shell may hold besides."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Process:
    """A running program that is stopped, and waited for, at the latest when its context ends.

    Args:
        command: Program and arguments.
        environment: The whole environment of the program; see `clean_environment`.
        directory: Its working directory.
        pass_fds: Descriptors it inherits.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        directory: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._name = Path(command[0]).name
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._popen = subprocess.Popen(
            [str(part) for part in command],
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )
        self._kept = ""

    @property
    def is_running(self) -> bool:
        """Whether the program has not ended."""
        return self._popen.poll() is None

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._popen.pid

    @property
    def output(self) -> str:
        """Everything written to standard output and standard error so far."""
        if self._output.closed:
            return self._kept
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def wait_for_output(self, pattern: str, *, timeout_seconds: float = 60) -> re.Match[str]:
        """Wait until the output matches the pattern.

        Raises:
            RuntimeError: The program ended first, or said nothing that matches in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            running = self.is_running
            if match := re.search(pattern, self.output):
                return match
            if not running:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self._name} did not get ready:\n{self.output[-4000:]}")

    def kill(self) -> None:
        """End the program at once, as a crash would."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Ask the program to end; kill it if it does not."""
        if self._output.closed:
            return
        self._popen.terminate()
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._kept = self.output
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
