"""`cloister function`, the part about deployed functions: traffic, calls and what they left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from cloister._cli._client import call, open_texts, show
from cloister.errors import ConfigurationError

__all__ = ["pairs", "register"]

Reference = Annotated[str, typer.Argument(help="NAME@ALIAS, or NAME@DIGEST.")]
Name = Annotated[str, typer.Argument(help="The function.")]
Alias = Annotated[str, typer.Argument(help="The alias, e.g. prod.")]
JobId = Annotated[str, typer.Argument(help="What `cloister function start` showed.")]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(help="NAME=TEXT or NAME:=JSON; NAME=- reads text from standard input."),
]
Context = Annotated[
    list[str] | None, typer.Option("--context", "-c", help="NAME=VALUE that inputs are bound to.")
]
After = Annotated[str, typer.Option(help="Continue behind this entry.")]
Limit = Annotated[int, typer.Option(help="At most so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (alias, rollback, list_, invoke, start, job, jobs, cancel, logs, debug, disable):
        app.command(command.__name__.rstrip("_"))(command)


def alias(
    name: Name, alias: Alias, digest: Annotated[str, typer.Argument(help="64 hexadecimal digits.")]
) -> None:
    """Point an alias to a deployed digest: how traffic moves."""
    show(call("function.alias", {"function": name, "alias": alias, "digest": digest}))


def rollback(name: Name, alias: Alias = "prod") -> None:
    """Point an alias back to where it pointed before it was moved last."""
    show(call("function.rollback", {"function": name, "alias": alias}))


def list_() -> None:
    """List functions with their aliases and deployed digests."""
    show(call("function.list", {}), "functions")


def invoke(function: Reference, inputs: Inputs = None, context: Context = None) -> None:
    """Call a function once and show what it let out, with the receipt."""
    show(_without_padding(call("function.invoke", payload(function, inputs, context))))


def start(function: Reference, inputs: Inputs = None, context: Context = None) -> None:
    """Call a function without waiting for it; shows the job to ask for."""
    show(call("function.start", payload(function, inputs, context)))


def job(job: JobId) -> None:
    """Show how far a job is, and its result once it is done."""
    show(_without_padding(call("job.get", {"job": job})))


def jobs(*, after: After = "", limit: Limit = 100) -> None:
    """List the jobs of the tenant."""
    show(call("job.list", {"after": after, "limit": limit}), "jobs")


def cancel(job: JobId) -> None:
    """End a job; what it has done outside before stays done."""
    show(call("job.cancel", {"job": job}))


def logs(
    name: Name,
    *,
    after: After = "",
    limit: Limit = 100,
    sealed: Annotated[bool, typer.Option("--sealed", help="Show the entries without opening them.")] = False,
) -> None:
    """Show what a function printed and logged, opened with your right `decrypt` on its key for logs."""
    entries = call("function.logs", {"function": name, "after": after, "limit": limit})["entries"]
    if sealed:
        show({"entries": entries}, "entries")
        return
    contexts = [{"function": entry["function"], "entry": entry["entry"]} for entry in entries]
    for entry, text in zip(entries, open_texts([e["sealed"] for e in entries], contexts), strict=True):
        typer.echo(f"--- {entry['entry']} {entry['principal']} {entry['outcome']} {entry['correlation_id']}")
        typer.echo(text.rstrip("\n"))


def debug(
    name: Name, minutes: Annotated[int, typer.Argument(help="0 ends it at once; at most 1440.")]
) -> None:
    """Let callers see the text of the function's errors for some minutes. Receipts of that time say so."""
    show(call("function.debug", {"function": name, "minutes": minutes}))


def disable(
    name: Name, *, enable: Annotated[bool, typer.Option("--enable", help="Let it run again.")] = False
) -> None:
    """Stop a function at once, whatever points to it."""
    show(call("function.disable", {"function": name, "disabled": not enable}))


def payload(function: str, inputs: list[str] | None, context: list[str] | None) -> dict[str, Any]:
    """What `function.invoke` takes, from what was typed."""
    return {
        "function": function,
        "inputs": dict(_input(item) for item in inputs or []),
        "context": pairs(context or [], "--context"),
    }


def _without_padding(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_padding(value) if name == "result" and value else value
        for name, value in result.items()
        if name != "padding"
    }


def pairs(items: Iterable[str], option: str) -> dict[str, str]:
    """Read NAME=VALUE, each name once."""
    found: dict[str, str] = {}
    for item in items:
        name, given, value = item.partition("=")
        if not given or not name or name in found:
            raise ConfigurationError(f"{option} takes NAME=VALUE, each name once")
        found[name] = value
    return found


def _input(item: str) -> tuple[str, Any]:
    name, found, value = item.partition("=")
    if not found or not name.rstrip(":"):
        raise ConfigurationError("an input is written NAME=TEXT or NAME:=JSON")
    if value == "-":
        return name, sys.stdin.read().strip()
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError:
        raise ConfigurationError(
            f"the input {name[:-1]} is not JSON", hint="write NAME=TEXT for text"
        ) from None
