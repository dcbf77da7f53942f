"""How commands reach the host and print what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from cloister.client import Client

__all__ = ["call", "open_texts", "show", "write_private"]


def call(op: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """One operation, with the settings of the environment and `cloister.toml`."""
    with Client.from_env() as client:
        return client.call(op, payload)


def open_texts(sealed: Sequence[str], contexts: Sequence[Mapping[str, str]]) -> list[str]:
    """Open values that hold text."""
    with Client.from_env() as client:
        return [str(value) for value in client.open_many(sealed, contexts=contexts)]


def show(result: Mapping[str, Any], member: str | None = None) -> None:
    """Print a result: a list as one JSON document a line, anything else indented."""
    if member is None:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for item in result[member]:
        typer.echo(json.dumps(item, ensure_ascii=False))


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
