"""Arguments that several commands take: periods, times, and data from files or standard input."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path
from time import time
from typing import Annotated, Any, Final

import typer

from cloister.errors import ConfigurationError

__all__ = ["Yes", "confirm", "given", "read_data", "read_lines", "seconds", "when"]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether you mean it.")]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_PERIOD: Final = re.compile(r"([1-9][0-9]{0,9})([smhdwy]?)").fullmatch


def seconds(period: str | None) -> int | None:
    """Read a period such as `90d`, `12h`, `30m` or `45s`; a bare number is seconds.

    Raises:
        ConfigurationError: It is none.
    """
    if period is None:
        return None
    found = _PERIOD(period)
    if found is None:
        raise ConfigurationError(f"{period!r} is not a period", hint="90d, 12h, 30m, 45s, 2w or 1y")
    return int(found[1]) * _UNITS[found[2] or "s"]


def when(time_: str | None) -> int | None:
    """Read a time: ISO 8601 with an offset, or `+90d` from now.

    Raises:
        ConfigurationError: It is none.
    """
    if time_ is None:
        return None
    if time_.startswith("+"):
        return int(time()) + (seconds(time_[1:]) or 0)
    try:
        moment = datetime.fromisoformat(time_)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError(
            f"{time_!r} is not a time", hint="2030-01-31T09:00:00+00:00, or +90d from now"
        )
    return int(moment.timestamp())


def confirm(consequence: str, *, yes: bool) -> None:
    """Ask whether somebody means what cannot be taken back; a script says so with `--yes`.

    Raises:
        ConfigurationError: Nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(f"nothing was done: {consequence}", hint="say that you mean it: --yes")
    typer.confirm(f"{consequence[:1].upper()}{consequence[1:]}. Go on?", abort=True, err=True)


def given(**members: Any) -> dict[str, Any]:
    """The members of a payload whose options were given."""
    return {name: value for name, value in members.items() if value is not None}


def read_data(file: Path | None) -> bytes:
    """The bytes of a file, or of standard input.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    if file is None:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError:
        raise ConfigurationError(f"{file} cannot be read") from None


def read_lines() -> list[str]:
    """The values on standard input, one a line."""
    return sys.stdin.read().split()
