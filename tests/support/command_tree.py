"""Every command of the command line, as it is installed here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import typer

from cloister._cli import ELSEWHERE
from cloister._cli.root import build

__all__ = ["commands", "root"]


@cache
def root() -> Any:
    plugins = {entry.name: entry for entry in entry_points(group="cloister.commands")}
    missing = {name: package for name, package in ELSEWHERE.items() if name not in plugins}
    return typer.main.get_command(build(plugins, missing))


@cache
def commands() -> dict[str, Any]:
    """Every group and command by what is typed."""
    return dict(_below(root(), ()))


def _below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    if hasattr(command, "list_commands"):
        context = command.make_context("cloister", [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from _below(command.get_command(context, name), (*path, name))
