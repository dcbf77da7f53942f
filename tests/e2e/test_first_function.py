"""The page "Write your first confidential function", done as written in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.documents import DOCS, run_blocks, run_command

PAGE = DOCS / "first-function.md"
NAMED_FILE = re.compile(r"`([\w/]+\.py)`:\n\n```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(900)  # some thirty commands, each a process of its own
def test_the_page_works_as_written(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, content in NAMED_FILE.findall(text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    commands = tmp_path / "commands.md"
    commands.write_text(NAMED_FILE.sub("", text), encoding="utf-8")
    try:
        printed = run_blocks(commands, tmp_path, {})
    finally:
        run_command("cloister host stop", tmp_path, {})
    shown = "\n".join(printed)
    assert re.search(r"^True [\w-]{22,}$", shown, re.MULTILINE), shown
    assert "asked about an instalment of 900" in shown
    assert re.search(r"^done False$", shown, re.MULTILINE), shown


def test_the_page_shows_every_kind_of_command_there_is_for_functions() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for command in ("test", "build", "deploy", "list", "logs", "debug", "rollback", "disable"):
        assert f"cloister function {command}" in text
