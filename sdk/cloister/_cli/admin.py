"""Administration: tenants, principals, grants, secrets, token policies, deliveries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister._cli._client import call, show, write_private
from cloister.errors import ConfigurationError

__all__ = ["GROUPS"]

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]
KeyFile = Annotated[Path, typer.Option("--out", help="New file for the API key; it is shown nowhere else.")]

tenant = typer.Typer(help="Tenants of the host (needs the operator's API key).", no_args_is_help=True)
principal = typer.Typer(help="Who may call: people, services, FaaS functions.", no_args_is_help=True)
grant = typer.Typer(help="Who may do what. Nothing is allowed unless granted.", no_args_is_help=True)
secret = typer.Typer(help="Secrets for the egress of confidential functions.", no_args_is_help=True)
token_policy = typer.Typer(help="How values become tokens.", no_args_is_help=True)
delivery = typer.Typer(help="Deliveries to other applications.", no_args_is_help=True)

GROUPS: Final = {
    "tenant": tenant,
    "principal": principal,
    "grant": grant,
    "secret": secret,
    "token-policy": token_policy,
    "delivery": delivery,
}


@tenant.command("create")
def tenant_create(name: Name, out: KeyFile = Path("admin.key")) -> None:
    """Create a tenant and its principal `admin`."""
    _create_with_key("tenant.create", {"tenant": name}, out)


@tenant.command("list")
def tenant_list() -> None:
    """List the tenants."""
    show(call("tenant.list", {}), "tenants")


@principal.command("create")
def principal_create(
    name: Name,
    out: KeyFile,
    kind: Annotated[str, typer.Option(help="person, service, or faas (never sees plaintext).")] = "service",
) -> None:
    """Create a principal; it may do nothing until it is granted something."""
    _create_with_key("principal.create", {"principal": name, "kind": kind}, out)


@principal.command("list")
def principal_list() -> None:
    """List the principals."""
    show(call("principal.list", {}), "principals")


@principal.command("rotate-key")
def principal_rotate_key(name: Name, out: KeyFile) -> None:
    """Give a principal a new API key; the old one ends."""
    _create_with_key("principal.rotate_key", {"principal": name}, out)


@principal.command("disable")
def principal_disable(name: Name) -> None:
    """End a principal's access."""
    show(call("principal.disable", {"principal": name}))


@grant.command("add")
def grant_add(
    principal: Annotated[str, typer.Argument(help="A principal, or function:<digest>.")],
    action: Annotated[str, typer.Argument(help="seal, decrypt, invoke, key.manage ...")],
    resource: Annotated[str, typer.Argument(help="key/NAME, function/NAME, policy/NAME ... or *")],
) -> None:
    """Allow a principal one action on one resource."""
    show(call("grant.create", {"principal": principal, "action": action, "resource": resource}))


@grant.command("remove")
def grant_remove(principal: str, action: str, resource: str) -> None:
    """Take a grant back."""
    show(call("grant.delete", {"principal": principal, "action": action, "resource": resource}))


@grant.command("list")
def grant_list(principal: Annotated[str | None, typer.Argument()] = None) -> None:
    """List grants, of one principal or of all."""
    show(call("grant.list", {"principal": principal} if principal else {}), "grants")


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


def _create_with_key(op: str, payload: dict[str, str], out: Path) -> None:
    """Run an operation that returns an API key, and put the key into a file of its own."""
    if out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    result = dict(call(op, payload))
    write_private(out, result.pop("api_key"))
    show({**result, "api_key_file": str(out)})
