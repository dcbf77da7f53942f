"""Values on the command line: seal, open, tokenize, and what the host proved."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from cloister._cli._client import show
from cloister._cli.attest import attest
from cloister._cli.doctor import doctor
from cloister._cli.transfer import transfer
from cloister.client import Client
from cloister.errors import ConfigurationError

__all__ = ["Context", "context_of", "each_context", "register"]

Context = Annotated[
    list[str] | None, typer.Option("--context", "-c", help="NAME=VALUE the value is bound to; repeatable.")
]

Policy = Annotated[str, typer.Argument(help="Name of the token policy.")]


def register(app: typer.Typer) -> None:
    """Add the commands that stand at the top of the tree."""
    app.command("attest")(attest)
    app.command("doctor")(doctor)
    app.command("seal")(seal)
    app.command("open")(open_)
    app.command("tokenize")(tokenize)
    app.command("detokenize")(detokenize)
    app.command("transfer")(transfer)


def seal(key: Annotated[str, typer.Option(help="Name of the key.")], context: Context = None) -> None:
    """Seal text from standard input, one value a line."""
    lines = sys.stdin.read().splitlines()
    with Client.from_env() as client:
        for sealed in client.seal_many(lines, key=key, contexts=each_context(context, lines)):
            typer.echo(str(sealed))


def open_(context: Context = None) -> None:
    """Open sealed values from standard input, one a line (needs the right `decrypt`)."""
    lines = sys.stdin.read().split()
    with Client.from_env() as client:
        for value in client.open_many(lines, contexts=each_context(context, lines)):
            if isinstance(value, bytes):
                sys.stdout.buffer.write(value + b"\n")
            elif isinstance(value, str):
                typer.echo(value)
            else:
                show(value) if isinstance(value, dict) else typer.echo(value)


def tokenize(policy: Policy) -> None:
    """Tokenize values from standard input, one a line."""
    with Client.from_env() as client:
        for token in client.tokenize(policy, sys.stdin.read().splitlines()):
            typer.echo(str(token))


def detokenize(policy: Policy) -> None:
    """Detokenize tokens from standard input, one a line; an unknown token gives an empty line."""
    with Client.from_env() as client:
        for value in client.detokenize(policy, sys.stdin.read().split()):
            typer.echo(value or "")


def each_context(pairs: list[str] | None, values: list[str]) -> list[Mapping[str, str] | None] | None:
    """The same context for every value; raises as `context_of`."""
    context = context_of(pairs)
    return None if context is None else [context] * len(values)


def context_of(pairs: list[str] | None) -> dict[str, str] | None:
    """The context of repeated `--context NAME=VALUE`.

    Raises:
        ConfigurationError: A pair is not NAME=VALUE, or a name stands twice.
    """
    if not pairs:
        return None
    context = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(context) != len(pairs):
        raise ConfigurationError("a --context is not NAME=VALUE, or a name stands twice")
    return context
