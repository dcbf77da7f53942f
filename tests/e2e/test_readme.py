"""The README's own commands, in an empty folder, write, deploy and call a confidential function."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
SECTION = re.compile(r"## Ten lines that run\n(.*?)\n## ", re.DOTALL)
NAMED_FILE = re.compile(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def section() -> str:
    return SECTION.search(README.read_text())[1]


def test_the_example_is_as_short_as_it_says():
    code = [line for _, text in NAMED_FILE.findall(section()) for line in text.splitlines() if line]
    commands = COMMANDS.search(section())[1].strip().splitlines()
    assert len(code) <= 15
    assert len(commands) <= 6


def test_the_example_runs_as_written_in_an_empty_folder(tmp_path):
    for name, text in NAMED_FILE.findall(section()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
    }
    try:
        output = run(COMMANDS.search(section())[1], tmp_path, environment)
    finally:
        run("cloister host stop", tmp_path, environment)
    assert re.fullmatch(r"middle [0-9a-f]{32}", output.strip().splitlines()[-1]), output


def run(commands, folder, environment):
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
