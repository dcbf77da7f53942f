"""Administration: secrets, token policies, deliveries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister._cli._client import call, show
from cloister.errors import ConfigurationError

__all__ = ["GROUPS"]

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]

secret = typer.Typer(help="Secrets for the egress of confidential functions.", no_args_is_help=True)
token_policy = typer.Typer(help="How values become tokens.", no_args_is_help=True)
delivery = typer.Typer(help="Deliveries to other applications.", no_args_is_help=True)

GROUPS: Final = {
    "secret": secret,
    "token-policy": token_policy,
    "delivery": delivery,
}


@secret.command("put")
def secret_put(
    name: Name,
    file: Annotated[Path | None, typer.Option(help="File with the secret; standard input otherwise.")] = None,
) -> None:
    """Store a new version of a secret. It can be used by functions' egress and read by nobody."""
    text = file.read_text(encoding="utf-8") if file else sys.stdin.read()
    value = text.rstrip("\r\n")
    if not value:
        raise ConfigurationError("the secret is empty", hint="give --file or pipe it in")
    show(call("secret.put", {"secret": name, "value": value}))


@secret.command("list")
def secret_list() -> None:
    """List the names and versions of secrets."""
    show(call("secret.list", {}), "secrets")


@secret.command("delete")
def secret_delete(name: Name) -> None:
    """Delete a secret."""
    show(call("secret.delete", {"secret": name}))


@token_policy.command("create")
def token_policy_create(
    name: Name,
    alphabet: Annotated[str, typer.Option(help="The characters tokens are made of.")] = "0123456789",
    length: Annotated[int, typer.Option(help="How many of them a token has.")] = 12,
) -> None:
    """Create a policy with random tokens; values are kept encrypted in the host's vault."""
    payload = {"policy": name, "plan": "vault", "alphabet": alphabet, "length": length}
    show(call("policy.create", payload))


@token_policy.command("list")
def token_policy_list() -> None:
    """List the token policies."""
    show(call("policy.list", {}), "policies")


@delivery.command("list")
def delivery_list() -> None:
    """List deliveries: pending, done and given up."""
    show(call("delivery.list", {}), "deliveries")


@delivery.command("replay")
def delivery_replay(delivery_id: str) -> None:
    """Send a delivery that was given up once more, under the same id."""
    show(call("delivery.replay", {"delivery_id": delivery_id}))
