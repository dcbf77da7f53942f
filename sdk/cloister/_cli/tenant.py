"""`cloister tenant`: the tenants of a host, for its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
