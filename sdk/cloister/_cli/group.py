"""`cloister group`: principals that are granted things together."""

from __future__ import annotations

from typing import Annotated

import typer

from cloister._cli._client import call, show

__all__ = ["app"]

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]

app = typer.Typer(
    help="Groups of principals; grant to `group:NAME` what all of them may do.", no_args_is_help=True
)


@app.command("create")
def group_create(name: Name) -> None:
    """Create a group."""
    show(call("group.create", {"group": name}))


@app.command("delete")
def group_delete(name: Name) -> None:
    """Delete a group with its memberships and grants."""
    show(call("group.delete", {"group": name}))


@app.command("add")
def group_add(group: Name, principal: Name) -> None:
    """Make a principal a member."""
    show(call("group.add", {"group": group, "principal": principal}))


@app.command("remove")
def group_remove(group: Name, principal: Name) -> None:
    """End a membership, at once."""
    show(call("group.remove", {"group": group, "principal": principal}))


@app.command("list")
def group_list() -> None:
    """List the groups with their members."""
    show(call("group.list", {}), "groups")
