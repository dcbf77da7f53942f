"""Sealing a column before a load, and the command that prints DDL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloister.errors import ConfigurationError
from cloister_gcp import seal_column
from cloister_gcp.columns import ROWS


class Sealer:
    """Marks what it was given, instead of sealing it."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[object], object]] = []

    def seal_many(self, values, *, key, contexts=None):
        self.batches.append((list(values), contexts))
        return [f"<{key}:{value}>" for value in values]


def rows(count):
    return ({"member_id": n, "ssn": f"n{n}"} for n in range(count))


def test_one_column_is_sealed_and_bound_and_the_others_stay():
    sealer = Sealer()
    sealed = seal_column(rows(2), "ssn", key="ssn", context=["member_id"], client=sealer)
    assert list(sealed) == [{"member_id": 0, "ssn": "<ssn:n0>"}, {"member_id": 1, "ssn": "<ssn:n1>"}]
    assert sealer.batches == [(["n0", "n1"], [{"member_id": "0"}, {"member_id": "1"}])]


def test_without_context_nothing_is_bound():
    sealer = Sealer()
    list(seal_column(rows(1), "ssn", key="ssn", client=sealer))
    assert sealer.batches[0][1] is None


def test_null_stays_null_and_is_not_sealed():
    sealer = Sealer()
    given = [{"member_id": 1, "ssn": None}, {"member_id": 2, "ssn": "n2"}]
    sealed = list(seal_column(given, "ssn", key="ssn", context=["member_id"], client=sealer))
    assert [row["ssn"] for row in sealed] == [None, "<ssn:n2>"]
    assert sealer.batches == [(["n2"], [{"member_id": "2"}])]


def test_rows_are_sealed_in_groups_as_they_are_asked_for():
    sealer = Sealer()
    sealed = seal_column(rows(2 * ROWS + 1), "ssn", key="ssn", client=sealer)
    assert not sealer.batches
    next(sealed)
    assert [len(values) for values, _ in sealer.batches] == [ROWS]
    assert sum(1 for _ in sealed) == 2 * ROWS
    assert [len(values) for values, _ in sealer.batches] == [ROWS, ROWS, 1]


def test_what_was_given_is_not_changed():
    given = [{"member_id": 1, "ssn": "n1"}]
    list(seal_column(given, "ssn", key="ssn", client=Sealer()))
    assert given == [{"member_id": 1, "ssn": "n1"}]


@pytest.mark.parametrize(
    "row",
    [{"member_id": 1}, {"ssn": "n1"}, {"member_id": None, "ssn": "n1"}, {"member_id": 1.5, "ssn": "n1"}],
    ids=["no column", "no context column", "a null context", "a context without one spelling"],
)
def test_a_row_that_cannot_be_sealed_is_refused_without_its_values(row):
    with pytest.raises(ConfigurationError) as caught:
        list(seal_column([row], "ssn", key="ssn", context=["member_id"], client=Sealer()))
    assert "n1" not in str(caught.value)


def ddl(directory: Path, target: str) -> subprocess.CompletedProcess[str]:
    command = ["-c", "from cloister._cli import main; main()", "gcp", "ddl", target]
    names = ["--function", "clinic.f", "--connection", "us.c", "--endpoint", "https://f.example"]
    return subprocess.run(
        [sys.executable, *command, *names], cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "main.py").write_text(
        "from cloister_gcp import Sealed, remote_function\n"
        'f = remote_function("f@prod", args={"ssn": Sealed}, returns=bool)\n'
    )
    return tmp_path


def test_the_command_prints_the_ddl_of_a_declaration(folder):
    done = ddl(folder, "main:f")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CREATE OR REPLACE FUNCTION `clinic.f`(ssn STRING) RETURNS BOOL")


@pytest.mark.parametrize("target", ["main:g", "absent:f", "main", "", ":", "main:__name__"])
def test_the_command_says_what_to_name(folder, target):
    done = ddl(folder, target)
    assert done.returncode == 1
    assert "main:NAME" in done.stderr
    assert "Traceback" not in done.stderr
