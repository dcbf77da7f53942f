"""`cloister gcp`: loaded by the command line when it is asked for."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister.config import gather
from cloister.errors import ConfigurationError
from cloister_gcp.declaration import Declaration
from cloister_gcp.setup import Setup

__all__ = ["app"]

SHORTEST_ACCOUNT: Final = 6
"""Characters of a service account's name."""

app = typer.Typer(help="BigQuery remote functions.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `ddl` a subcommand while it is the only one."""


@app.command()
def ddl(
    target: Annotated[str, typer.Argument(help="The entry point, as module:name (main:ssn_breached).")],
    function: Annotated[
        str,
        typer.Option(
            help="The SQL function, dataset.name; the dataset alone for several (remote_functions)."
        ),
    ],
    connection: Annotated[str, typer.Option(help="The BigQuery connection: location.connection.")],
    endpoint: Annotated[str, typer.Option(help="https URL of the deployed Cloud Run function.")] = "",
    *,
    max_batching_rows: Annotated[int, typer.Option(help="Rows a request.")] = 10_000,
    service: Annotated[
        str, typer.Option(help="Names the Cloud Run service and its account; by default the entry point.")
    ] = "",
    region: Annotated[str, typer.Option(help="Of the service; by default the connection's.")] = "",
    shell: Annotated[
        bool, typer.Option("--shell", help="Print a script that does everything, instead of SQL.")
    ] = False,
) -> None:
    """Print the CREATE FUNCTION statement of a remote function; pipe it to `bq query --nouse_legacy_sql`.

    The commands that come before it stand above it as comments.
    """
    entry_point = target.partition(":")[2]
    declared = _declarations(target)
    setup = Setup(
        entry_point=entry_point,
        functions=sorted({declaration.function.name for declaration in declared.values()}),
        connection=connection,
        service=service or _service(entry_point),
        region=region,
        settings=_settings(),
    )
    if shell:
        again = ["cloister", "gcp", "ddl", target, "--function", function, "--connection", connection]
        again += ["--max-batching-rows", str(max_batching_rows)]
        typer.echo(_script(setup, shlex.join(again)))
        return
    statements = [
        declaration.ddl(
            f"{function}.{name}" if name else function,
            connection=connection,
            endpoint=endpoint,
            max_batching_rows=max_batching_rows,
        )
        for name, declaration in declared.items()
    ]
    for step in setup.steps():
        typer.echo("\n".join([f"-- {step.why}:", *(f"--   {command}" for command in step.commands)]))
    typer.echo("\n".join(["-- the SQL function:", *statements]))


def _service(entry_point: str) -> str:
    name = entry_point.replace("_", "-").lower()
    return name if len(name) >= SHORTEST_ACCOUNT else f"cloister-{name}"


def _script(setup: Setup, again: str) -> str:
    steps = [line for step in setup.steps() for line in ("", f"# {step.why}", *step.commands)]
    last = f'{again} --endpoint "$ENDPOINT" | bq query --nouse_legacy_sql'
    return "\n".join(["set -euo pipefail", *steps, "", "# the SQL function", last])


def _settings() -> dict[str, str]:
    """Settings of the service: those of this machine, and the identity that it has there."""
    here = gather(())
    return {
        "CLOISTER_URL": str(here["url"] or "https://cloister.example.com"),
        "CLOISTER_TENANT": str(here["tenant"] or "acme"),
        "CLOISTER_POLICY": "policy.toml",
        "CLOISTER_IDENTITY": "gcp",
    }


def _declarations(target: str) -> dict[str, Declaration]:
    """What an entry point serves, by name; one that serves a single function has none."""
    module_name, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except (ImportError, TypeError, ValueError):  # no such module, or no name of one
        found = None
    several = getattr(found, "endpoints", None)
    declared = (
        {key: getattr(one, "declaration", None) for key, one in several.items()}
        if isinstance(several, dict)
        else {"": getattr(found, "declaration", None)}
    )
    checked = {key: one for key, one in declared.items() if isinstance(one, Declaration)}
    if not checked or len(checked) != len(declared):
        raise ConfigurationError(
            f"{target} is no remote_function", hint="run it beside main.py and write main:NAME"
        )
    return checked
