"""The command `cloister`. Subcommands of other packages join through the entry point `cloister.commands`."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

from cloister.errors import CloisterError, ConfigurationError

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
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Whoever read the output has enough; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 (nobody who types a command wants a traceback, nor data in it)
        sys.exit(explain(known(error), as_json="--json" in sys.argv))
    sys.exit(0)


def known(error: Exception) -> CloisterError:
    """Any exception as an error with something to say, and without what the message may quote."""
    if isinstance(error, CloisterError):
        return error
    if isinstance(error, UnicodeError):
        return ConfigurationError("the input is not text in UTF-8")
    if isinstance(error, OSError):
        name = error.filename if isinstance(error.filename, str) else "a file or address"
        return ConfigurationError(f"{name} cannot be used ({error.strerror or type(error).__name__})")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cloister" in frame.filename]
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return DefectError(f"{type(error).__name__}{where}", hint="this is a defect: please report this line")


class DefectError(CloisterError):
    """Something that should not happen; never on the wire."""

    code = "defect"


def explain(error: CloisterError, *, as_json: bool = False) -> str:
    """An error for a terminal, or as one line of JSON: what happened, and what to do next."""
    if as_json:
        names = ("hint", "retryable", "correlation_id", "proposal_id")
        members = {name: getattr(error, name) for name in names if hasattr(error, name)}
        return json.dumps({"error": {"code": error.code, "message": str(error.args[0]), **members}})
    lines = [f"error [{error.code}]: {error.args[0]}"]
    if error.hint:
        lines.append(f"  try: {error.hint}")
    if error.correlation_id:
        lines.append(f"  the host logged it as {error.correlation_id}")
    return "\n".join(lines)
