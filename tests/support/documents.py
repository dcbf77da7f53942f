"""Runs a document's own commands and examples, in the order in which they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DOCS", "run_blocks", "run_command"]

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(sh|python|js)\n(.*?)^```", re.DOTALL | re.MULTILINE)

_RUNNERS = {
    "sh": ("bash", "-ec"),
    "python": (sys.executable, "-c"),
    "js": ("node", "--input-type=module", "-e"),
}


def run_blocks(document: Path, folder: Path, settings: Mapping[str, str]) -> list[str]:
    """Run every `sh`, `python` and `js` block of a document in a folder; gives what each printed."""
    return [
        _run([*_RUNNERS[language], text], folder, settings)
        for language, text in _BLOCK.findall(document.read_text(encoding="utf-8"))
    ]


def run_command(text: str, folder: Path, settings: Mapping[str, str]) -> str:
    """Run one shell command in a folder; gives what it printed."""
    return _run(["bash", "-ec", text], folder, settings)


def _run(command: list[str], folder: Path, settings: Mapping[str, str]) -> str:
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        **settings,
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout
