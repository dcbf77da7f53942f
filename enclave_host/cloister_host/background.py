"""A development host in the background: started once it answers, stopped by its pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["start", "stop"]

PID_FILE: Final = "host.pid"
LOG_FILE: Final = "host.log"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.05


def start(arguments: Sequence[str], *, url: str, state: Path) -> None:
    """Start `cloister host` with these arguments and wait until it answers.

    Raises:
        ConfigurationError: One runs here already.
        UnavailableError: It ended or does not answer.
    """
    pid_file, log_file = state / PID_FILE, state / LOG_FILE
    if pid_file.exists() and _runs(_pid(pid_file)):
        raise ConfigurationError("a host runs here already", hint="`cloister host stop` ends it")
    with log_file.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (our own program and arguments)
            [sys.executable, "-m", "cloister_host", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    pid_file.write_text(f"{process.pid}\n", encoding="ascii")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1):  # noqa: S310 (our own loopback URL)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    process.terminate()
    raise UnavailableError("the host did not start", hint=f"look into {log_file}")


def stop(state: Path) -> None:
    """Stop the host that `start` left running, and wait until it is gone.

    Raises:
        ConfigurationError: None runs here.
    """
    pid_file = state / PID_FILE
    if not pid_file.exists() or not _runs(pid := _pid(pid_file)):
        raise ConfigurationError("no host runs here", hint="`cloister host dev --detach` starts one")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    pid_file.unlink()


def _pid(path: Path) -> int:
    text = path.read_text(encoding="ascii").strip()
    return int(text) if text.isdecimal() else 0


def _runs(pid: int) -> bool:
    """Whether this is a process of ours; a pid that was given to another program is not."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\x00")
    except OSError:
        return False
    return b"cloister_host" in command
