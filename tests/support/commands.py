"""Run the commands of this environment as a shell would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["run"]


def run(
    command: list[str], folder: Path, *, fails: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`; it has to succeed, or to fail, as the caller says."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done
