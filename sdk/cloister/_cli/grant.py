"""`cloister grant`: who may do what, when, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cloister._cli._arguments import when
from cloister._cli._client import call, show

__all__ = ["app"]

Subject = Annotated[str, typer.Argument(help="A principal, group:NAME, or function:DIGEST.")]
Action = Annotated[str, typer.Argument(help="seal, decrypt, invoke, key.manage ... or role:NAME.")]
Resource = Annotated[str, typer.Argument(help="key/NAME, function/NAME, policy/NAME ... or *.")]
Purpose = Annotated[list[str] | None, typer.Option("--purpose", help="One of these has to be stated.")]

app = typer.Typer(help="Who may do what. Nothing is allowed unless granted.", no_args_is_help=True)


@app.command("add")
def grant_add(
    principal: Subject,
    action: Action,
    resource: Resource,
    *,
    purpose: Purpose = None,
    function: Annotated[
        list[str] | None, typer.Option("--function", help="Digests of functions it is for.")
    ] = None,
    hours: Annotated[str, typer.Option(help="A daily window in UTC: 08:00-18:00.")] = "",
    day: Annotated[list[str] | None, typer.Option("--day", help="mon ... sun, in UTC.")] = None,
    begins: Annotated[str | None, typer.Option("--from", help="ISO 8601, or +2h from now.")] = None,
    ends: Annotated[str | None, typer.Option("--until", help="ISO 8601, or +90d from now.")] = None,
) -> None:
    """Allow somebody one action, or a role, on one resource; conditions all have to hold."""
    given: dict[str, Any] = {
        "purposes": purpose,
        "functions": function,
        "hours": hours,
        "days": day,
        "not_before": when(begins),
        "not_after": when(ends),
    }
    conditions = {name: value for name, value in given.items() if value}
    payload = {"principal": principal, "action": action, "resource": resource}
    show(call("grant.create", payload | ({"conditions": conditions} if conditions else {})))


@app.command("remove")
def grant_remove(principal: Subject, action: Action, resource: Resource) -> None:
    """Take a grant back, at once."""
    show(call("grant.delete", {"principal": principal, "action": action, "resource": resource}))


@app.command("list")
def grant_list(
    principal: Annotated[
        str | None, typer.Argument(help="A principal or group; all if none is named.")
    ] = None,
) -> None:
    """List grants, of one principal or group or of all."""
    show(call("grant.list", {"principal": principal} if principal else {}), "grants")


@app.command("explain")
def grant_explain(
    principal: Subject,
    action: Action,
    resource: Resource,
    *,
    purpose: Annotated[str, typer.Option(help="As the call would state it.")] = "",
    function: Annotated[str, typer.Option(help="Digest of the function that would be invoked.")] = "",
    at: Annotated[str | None, typer.Option(help="Another time than now: ISO 8601, or +2h.")] = None,
) -> None:
    """Say why somebody may do something, or may not: which grant, which condition, which rule."""
    payload: dict[str, Any] = {
        "principal": principal,
        "action": action,
        "resource": resource,
        "purpose": purpose,
        "function": function,
    }
    show(call("grant.explain", payload | ({} if at is None else {"at": when(at)})))


@app.command("roles")
def grant_roles() -> None:
    """List the roles and the actions they hold."""
    show(call("role.list", {}), "roles")
