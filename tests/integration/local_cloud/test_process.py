from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from local_cloud.process import Process, clean_environment

if TYPE_CHECKING:
    from pathlib import Path


def run(script: str) -> Process:
    return Process([sys.executable, "-c", script], environment=clean_environment())


def test_output_is_kept_after_the_end() -> None:
    with run("print('ready 42'); import time; time.sleep(60)") as process:
        assert process.wait_for_output(r"ready (\d+)")[1] == "42"
    assert not process.is_running
    assert process.output == "ready 42\n"


def test_a_program_that_ends_early_is_reported_with_its_output() -> None:
    with run("raise SystemExit('no database')") as process, pytest.raises(RuntimeError, match="no database"):
        process.wait_for_output("ready")


def test_a_program_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_cloud.process.STOP_SECONDS", 0.2)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)"
    with run(script) as process:
        process.wait_for_output("up")
    assert not process.is_running


def test_the_environment_of_the_shell_is_not_inherited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the developer")
    environment = clean_environment({"MINE": "1"})
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert environment["MINE"] == "1"
