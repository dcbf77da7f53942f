"""`cloister secret`: versioned secrets, for functions' egress and for whoever may read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloister._cli._arguments import Yes, confirm, given, read_data, seconds
from cloister._cli._client import call, show
from cloister.errors import ConfigurationError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Secrets: for the egress of functions, and for nobody else.")

Name = Annotated[str, typer.Argument(help="Name of the secret.")]
Version = Annotated[int | None, typer.Option(help="The version that is meant; else the newest.")]


@app.command("put")
def put(
    name: Name,
    file: Annotated[Path | None, typer.Option(help="File with the secret; standard input otherwise.")] = None,
    if_version: Annotated[
        int | None, typer.Option(help="Only if this is the newest; 0 if there is none.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(help="How long the value is good, as 30d.")] = None,
) -> None:
    """Store a new version of a secret."""
    options = given(if_version=if_version, ttl_seconds=seconds(ttl))
    try:
        value = read_data(file).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError("the secret is not text", hint="encode it, as with base64") from None
    if not value:
        raise ConfigurationError("the secret is empty", hint="give --file or pipe it in")
    show(call("secret.put", {"secret": name, "value": value, **options}))


@app.command("get")
def get(name: Name, version: Version = None) -> None:
    """Print a secret (right `secret.read`, which nobody has by default)."""
    typer.echo(call("secret.get", {"secret": name} | given(version=version))["value"])


@app.command("list")
def list_() -> None:
    """List the secrets, a line each."""
    show(call("secret.list", {}), "secrets")


@app.command("versions")
def versions(name: Name) -> None:
    """List the versions of a secret, a line each."""
    show(call("secret.versions", {"secret": name}), "versions")


@app.command("delete")
def delete(name: Name, version: Version = None) -> None:
    """Take a version out of use; `undelete` brings it back for thirty days."""
    show(call("secret.delete", {"secret": name} | given(version=version)))


@app.command("undelete")
def undelete(name: Name, version: Version = None) -> None:
    """Bring a deleted version back."""
    show(call("secret.undelete", {"secret": name} | given(version=version)))


@app.command("destroy")
def destroy(
    name: Name,
    version: Annotated[int, typer.Option(help="The version that is destroyed.")],
    *,
    yes: Yes = False,
) -> None:
    """Erase the value of a version, for good."""
    confirm("the value will be erased for good", yes=yes)
    show(call("secret.destroy", {"secret": name, "version": version}))


@app.command("schedule")
def schedule(
    name: Name,
    function: Annotated[
        str | None, typer.Option(help="Makes the new value: name@alias. None: no rotation.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The key its output is sealed under.")] = None,
    every: Annotated[str | None, typer.Option(help="How often, as 30d; else on demand only.")] = None,
) -> None:
    """Say which confidential function rotates a secret, and how often."""
    payload = given(function=function, key=key, every_seconds=seconds(every))
    show(call("secret.schedule", {"secret": name} | payload))


@app.command("rotate")
def rotate(name: Name) -> None:
    """Have the function that was named for it make the next version, now."""
    show(call("secret.rotate", {"secret": name}))
