"""`cloister gcp`: loaded by the command line when it is asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from cloister.errors import ConfigurationError
from cloister_gcp.remote import Declaration

__all__ = ["app"]

app = typer.Typer(help="BigQuery remote functions.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `ddl` a subcommand while it is the only one."""


@app.command()
def ddl(
    target: Annotated[str, typer.Argument(help="The declaration, as module:name (main:ssn_breached).")],
    function: Annotated[str, typer.Option(help="The SQL function: dataset.name or project.dataset.name.")],
    connection: Annotated[str, typer.Option(help="The BigQuery connection: location.connection.")],
    endpoint: Annotated[str, typer.Option(help="https URL of the deployed Cloud Run function.")],
    max_batching_rows: Annotated[int, typer.Option(help="Rows a request.")] = 10_000,
) -> None:
    """Print the CREATE FUNCTION statement of a remote function; pipe it to `bq query`.

    The connection's service account needs roles/run.invoker on the endpoint, and nobody else does.
    """
    typer.echo(
        _declaration(target).ddl(
            function, connection=connection, endpoint=endpoint, max_batching_rows=max_batching_rows
        )
    )


def _declaration(target: str) -> Declaration:
    module_name, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except (ImportError, ValueError):
        found = None
    declaration = getattr(found, "declaration", None)
    if not isinstance(declaration, Declaration):
        raise ConfigurationError(
            f"{target} is no remote_function", hint="run it beside main.py and write main:NAME"
        )
    return declaration
