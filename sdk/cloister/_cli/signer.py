"""Keys of those who deploy functions and of those who write values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister import jose
from cloister._cli._client import call, read_jwk, show, write_private
from cloister.function.names import check_name

__all__ = ["app"]

app = typer.Typer(help="Registered keys of deployers and authors.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]


@app.command("create")
def create(name: Name, out: Annotated[Path, typer.Option(help="New file for the private key.")]) -> None:
    """Make an Ed25519 key; prints its public half, for `cloister signer add`. Needs no host."""
    key = jose.generate_key("EdDSA", kid=check_name(name, "signer"))
    write_private(out, json.dumps(key.to_jwk()))
    typer.echo(json.dumps(jose.public_jwk(key)))


@app.command("add")
def add(
    name: Name,
    key: Annotated[Path, typer.Argument(help="Its public key, a JWK.")],
    *,
    use: Annotated[str, typer.Option(help="deployer (of bundles) or author (of values).")],
) -> None:
    """Register a key: what it signs counts as this deployer's or author's."""
    show(call("signer.add", {"signer": name, "use": use, "jwk": read_jwk(key)}))


@app.command("remove")
def remove(name: Name) -> None:
    """Forget a key: what it signed is accepted no longer."""
    show(call("signer.remove", {"signer": name}))


@app.command("list")
def list_() -> None:
    """List the registered keys."""
    show(call("signer.list", {}), "signers")


@app.command("require")
def require(
    *, off: Annotated[bool, typer.Option("--off", help="Accept unsigned bundles again.")] = False
) -> None:
    """Accept only bundles that a registered deployer has signed."""
    show(call("function.rules", {"signed_only": not off}))
