"""What holds for every command: help, flags, and errors that somebody can act on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloister._cli import DefectError, explain, known
from cloister.errors import ConfigurationError, QuorumNeededError, UnavailableError
from support.command_tree import commands

COMMANDS = commands()
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "list_commands")}
FOR_GOOD = ("tenant delete", "key destroy", "secret destroy", "principal disable", "principal revoke-key")


def test_help_begins_with_one_sentence():
    for path, command in COMMANDS.items():
        first = (command.help or "").strip().split("\n\n")[0]
        assert re.fullmatch(r"[A-Z`](?s:.)*[.]", first), f"cloister {path}: {first!r}"


def test_only_the_root_offers_completion():
    offering = [
        path for path, command in COMMANDS.items() if any("completion" in p.name for p in command.params)
    ]
    assert offering == [""]


def test_every_command_speaks_to_machines():
    for path, command in LEAVES.items():
        flags = [param for param in command.params if "--json" in param.opts]
        assert len(flags) == 1, f"cloister {path}"
        assert flags[0].is_flag, f"cloister {path}"


def test_names_of_options_are_spelled_one_way():
    names = {name for command in LEAVES.values() for param in command.params for name in param.opts}
    assert all(re.fullmatch(r"-[a-z]|--[a-z0-9]+(-[a-z0-9]+)*|[a-z0-9_]+", name) for name in names), names


@pytest.mark.parametrize("path", FOR_GOOD)
def test_what_cannot_be_taken_back_is_confirmed(path, tmp_path):
    flags = [param for param in LEAVES[path].params if "--yes" in param.opts]
    assert len(flags) == 1
    assert not flags[0].default


def test_without_somebody_to_ask_nothing_is_erased(tmp_path):
    done = _run(["tenant", "delete", "acme"], tmp_path)
    assert done.returncode == 1
    assert "nothing was done" in done.stderr
    assert "--yes" in done.stderr
    assert "CLOISTER_URL" in _run(["tenant", "delete", "acme", "--yes"], tmp_path).stderr


def test_an_error_is_one_line_of_json_where_a_machine_reads(tmp_path):
    done = _run(["key", "list", "--json"], tmp_path)
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["code"], error["retryable"]) == (1, "configuration", False)
    assert error["hint"]
    waiting = QuorumNeededError("two more have to agree", proposal_id="p1", hint="cloister proposal show p1")
    assert json.loads(explain(waiting, as_json=True))["error"]["proposal_id"] == "p1"
    assert explain(UnavailableError("gone", hint="wait", correlation_id="c1")).count("\n") == 2


def test_what_should_not_happen_shows_neither_data_nor_a_traceback():
    def broken():
        raise ValueError("4111 1111 1111 1111")

    with pytest.raises(ValueError) as raised:  # noqa: PT011 (any)
        broken()
    shown = known(raised.value)
    assert isinstance(shown, DefectError)
    assert "4111" not in explain(shown)
    assert "ValueError" in explain(shown)
    assert isinstance(known(FileNotFoundError(2, "No such file", "x.toml")), ConfigurationError)
    assert "x.toml" in explain(known(FileNotFoundError(2, "No such file", "x.toml")))


def test_a_reader_that_has_enough_is_no_error_to_show(tmp_path):
    command = f"{sys.executable} -m cloister function list --help | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def _run(arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "cloister", *arguments],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(str(Path(entry)) for entry in sys.path if entry),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
