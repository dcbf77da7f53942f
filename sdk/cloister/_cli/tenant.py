"""`cloister tenant`: the tenants of a host, for its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloister._cli._arguments import Yes, confirm
from cloister._cli._client import call, create_with_key, show

__all__ = ["app"]

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")]

app = typer.Typer(help="Tenants of the host (needs the operator's API key).", no_args_is_help=True)


@app.command("create")
def tenant_create(
    name: Name,
    out: Annotated[
        Path, typer.Option("--out", help="New file for the API key; it is shown nowhere else.")
    ] = Path("admin.key"),
) -> None:
    """Create a tenant and its principal `admin`."""
    create_with_key("tenant.create", {"tenant": name}, out)


@app.command("list")
def tenant_list() -> None:
    """List the tenants."""
    show(call("tenant.list", {}), "tenants")


@app.command("seal-off")
def tenant_seal_off(name: Name) -> None:
    """Close a tenant at once: its key is dropped, every call of it is refused."""
    show(call("tenant.seal_off", {"tenant": name}))


@app.command("unseal")
def tenant_unseal(name: Name) -> None:
    """Open a tenant that was sealed off again."""
    show(call("tenant.unseal", {"tenant": name}))


@app.command("delete")
def tenant_delete(name: Name, *, yes: Yes = False) -> None:
    """Erase a tenant that was sealed off. There is no way back."""
    confirm(f"everything of the tenant {name} will be erased for good", yes=yes)
    show(call("tenant.delete", {"tenant": name}))


@app.command("deletion-report")
def tenant_deletion_report(name: Name) -> None:
    """Tell what is left of a tenant that is being deleted."""
    show(call("tenant.deletion_report", {"tenant": name}))
