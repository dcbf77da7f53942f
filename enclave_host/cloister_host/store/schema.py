"""The tables there are, as the program's own migrations make them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

__all__ = ["tables"]

_TABLE: Final = re.compile(r"\s*CREATE TABLE (\w+) \((.*)", re.DOTALL)


@cache
def tables() -> Mapping[str, str]:
    """Every table by name, with the text between the brackets of its definition."""
    folder = resources.files("cloister_host.store.migrations")
    lines = (
        line
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
        for line in entry.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("--")
    )
    statements = map(_TABLE.match, "\n".join(lines).split(";"))
    return {match[1]: match[2] for match in statements if match}
