"""`cloister holder`: which kinds of machine may hold the deployment's keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cloister._cli._client import call, show
from cloister.errors import ConfigurationError

__all__ = ["app"]

Name = Annotated[str, typer.Argument(help="What you call this kind of machine.")]
File = Annotated[Path, typer.Option("--file", help="What `cloister host holder` printed on such a machine.")]

app = typer.Typer(help="Kinds of machine that may hold the deployment's keys.", no_args_is_help=True)


@app.command("add")
def holder_add(name: Name, file: File) -> None:
    """Let one more kind of machine hold the keys. Clients whose policy does not accept it turn away."""
    show(call("holder.add", {"name": name, **_read(file)}), "holders")


@app.command("remove")
def holder_remove(name: Name) -> None:
    """Let a kind of machine hold no keys any more: its hosts stop serving, and a new epoch begins."""
    show(call("holder.remove", {"name": name}), "holders")


@app.command("list")
def holder_list() -> None:
    """List the kinds of machine; before anybody has set them, each host takes its own alone."""
    show(call("holder.list", {}), "holders")


def _read(file: Path) -> dict[str, Any]:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the kind of machine cannot be read ({type(error).__name__})", hint="`cloister host holder`"
        ) from None
    if not isinstance(holder, dict):
        raise ConfigurationError("this is not a kind of machine", hint="`cloister host holder`")
    return holder
