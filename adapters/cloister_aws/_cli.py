"""`cloister aws`: loaded by the command line when it is asked for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer

from cloister_aws.layer import Architecture, build_layer

__all__ = ["app"]

app = typer.Typer(help="AWS Lambda.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `layer` a subcommand while it is the only one."""


@app.command()
def layer(
    python: Annotated[str, typer.Option(help="The function's runtime: 3.11, 3.12, 3.13 ...")],
    architecture: Annotated[str, typer.Option(help="x86_64 or arm64.")] = "x86_64",
    out: Annotated[Path, typer.Option(help="The zip file to write.")] = Path("cloister-layer.zip"),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Build a Lambda layer with the SDK, for one Python version and one architecture.

    Wheels come from your package index, in the versions that are installed here; the same installation
    builds the same bytes.
    """
    built = build_layer(out, python=python, architecture=cast("Architecture", architecture))
    if as_json:
        typer.echo(json.dumps(asdict(built), default=str, indent=2))
        return
    typer.echo(f"wrote {built.path}: {built.size_bytes / 1e6:.1f} MB, sha256 {built.sha256}")
    if not built.has_bytecode:
        typer.echo(f"without bytecode, so cold starts take longer: there is no python{python} here")
    typer.echo(
        f"aws lambda publish-layer-version --layer-name cloister --zip-file fileb://{built.path} "
        f"--compatible-runtimes python{python} --compatible-architectures {architecture}"
    )
