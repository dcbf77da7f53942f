"""The command `cloister`. Subcommands of other packages join through the entry point `cloister.commands`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import NoReturn

from cloister.errors import CloisterError

__all__ = ["main"]

ELSEWHERE = {"host": "cloister-host", "aws": "cloister[aws]", "gcp": "cloister[gcp]"}
"""Commands of packages that may not be installed."""


def main() -> NoReturn:
    """Run the command line."""
    try:
        import typer  # noqa: F401, PLC0415 (the client does not depend on it)
    except ImportError:
        sys.exit("The command line needs an extra: pip install 'cloister[cli]'")
    from cloister._cli.root import build  # noqa: PLC0415 (needs typer)

    plugins = {entry.name: entry for entry in entry_points(group="cloister.commands")}
    missing = {name: package for name, package in ELSEWHERE.items() if name not in plugins}
    try:
        build(plugins, missing)()
    except CloisterError as error:
        sys.exit(explain(error))
    sys.exit(0)


def explain(error: CloisterError) -> str:
    """An error for a terminal: what happened, and what to do next."""
    lines = [f"error [{error.code}]: {error.args[0]}"]
    if error.hint:
        lines.append(f"  try: {error.hint}")
    if error.correlation_id:
        lines.append(f"  the host logged it as {error.correlation_id}")
    return "\n".join(lines)
