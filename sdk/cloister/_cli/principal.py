"""`cloister principal`: who may call, and how they prove who they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloister._cli._arguments import Yes, confirm, seconds
from cloister._cli._client import call, create_with_key, show
from cloister.errors import ConfigurationError

__all__ = ["app"]

STS: Final = "https://sts.amazonaws.com/"

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]
KeyFile = Annotated[Path, typer.Option("--out", help="New file for the API key; it is shown nowhere else.")]
Expires = Annotated[str | None, typer.Option(help="After how long the key ends: 90d, 12h.")]
Issuer = Annotated[str, typer.Option(help="The issuer's URL, or ca:NAME.")]
Claims = Annotated[
    list[str] | None,
    typer.Option(
        "--claim",
        help="NAME=VALUE, or NAME:=JSON for a number or boolean; OUTER|INNER for a claim inside one.",
    ),
]

app = typer.Typer(help="Who may call: people, services, FaaS functions.", no_args_is_help=True)


@app.command("create")
def principal_create(
    name: Name,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="New file for the API key; it is shown nowhere else.")
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="No API key: it will be bound to claims.")] = False,
    kind: Annotated[str, typer.Option(help="person, service, or faas (never sees plaintext).")] = "service",
    expires: Expires = None,
) -> None:
    """Create a principal; it may do nothing until it is granted something."""
    if (out is None) != no_key:
        raise ConfigurationError(
            "say where the API key goes, or that there is none", hint="--out or --no-key"
        )
    payload: dict[str, Any] = {"principal": name, "kind": kind, "api_key": not no_key}
    create_with_key("principal.create", payload | _expiring(expires), out)


@app.command("list")
def principal_list() -> None:
    """List the principals."""
    show(call("principal.list", {}), "principals")


@app.command("disable")
def principal_disable(name: Name, *, yes: Yes = False) -> None:
    """End a principal's access for good."""
    confirm(f"the access of {name} ends for good", yes=yes)
    show(call("principal.disable", {"principal": name}))


@app.command("rotate-key")
def principal_rotate_key(
    name: Name,
    out: KeyFile,
    *,
    overlap: Annotated[str, typer.Option(help="How long the old keys stay good: 7d, 12h.")] = "",
    expires: Expires = None,
) -> None:
    """Give a principal a new API key; the ones it has end now, or after an overlap."""
    payload = {"principal": name, "overlap_seconds": seconds(overlap) if overlap else 0}
    create_with_key("principal.rotate_key", payload | _expiring(expires), out)


@app.command("keys")
def principal_keys(name: Name) -> None:
    """List a principal's API keys by their public parts."""
    show(call("principal.keys", {"principal": name}), "keys")


@app.command("revoke-key")
def principal_revoke_key(
    name: Name,
    key: Annotated[str, typer.Argument(help="Its public part: the 16 characters after clk_.")],
    *,
    yes: Yes = False,
) -> None:
    """End one API key, at once."""
    confirm("whoever uses the key is refused from now on", yes=yes)
    show(call("principal.revoke_key", {"principal": name, "key": key}))


@app.command("bind")
def principal_bind(
    name: Name,
    issuer: Issuer,
    *,
    claim: Claims = None,
    aws_role: Annotated[str, typer.Option(help="ARN of an IAM role: the claim `sub`.")] = "",
    aws_function: Annotated[str, typer.Option(help="ARN of the one Lambda function that is meant.")] = "",
) -> None:
    """Let whoever shows these claims by this issuer act as the principal; `sub` must be among them."""
    show(call("principal.bind", _binding(name, issuer, claim, aws_role, aws_function)))


@app.command("unbind")
def principal_unbind(
    name: Name,
    issuer: Issuer,
    *,
    claim: Claims = None,
    aws_role: Annotated[str, typer.Option(help="As it was bound.")] = "",
    aws_function: Annotated[str, typer.Option(help="As it was bound.")] = "",
) -> None:
    """End a binding, at once."""
    show(call("principal.unbind", _binding(name, issuer, claim, aws_role, aws_function)))


@app.command("bindings")
def principal_bindings(
    name: Annotated[str | None, typer.Argument(help="The principal; all of them if none is named.")] = None,
) -> None:
    """List bindings, of one principal or of all."""
    show(call("principal.bindings", {"principal": name} if name else {}), "bindings")


def _expiring(expires: str | None) -> dict[str, Any]:
    return {} if expires is None else {"expires_seconds": seconds(expires)}


def _binding(
    name: str, issuer: str, claims: list[str] | None, aws_role: str, aws_function: str
) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if aws_role:
        wanted["sub"] = aws_role
    if aws_function:
        wanted[STS] = {"lambda_source_function_arn": aws_function}
    for claim in claims or ():
        _put(wanted, claim)
    return {"principal": name, "issuer": issuer, "claims": wanted}


def _put(wanted: dict[str, Any], claim: str) -> None:
    path, equals, value = claim.partition("=")
    *outer, last = path.removesuffix(":").split("|")
    try:
        read = json.loads(value) if path.endswith(":") else value
    except ValueError:
        equals = ""
    into: Any = wanted
    for name in outer:
        into = into.setdefault(name, {}) if isinstance(into, dict) else None
    if not equals or not all([*outer, last]) or not isinstance(into, dict):
        raise ConfigurationError(f"{claim!r} is no claim", hint="NAME=VALUE, or NAME:=JSON")
    into[last] = read
