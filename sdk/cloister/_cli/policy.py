"""`cloister policy`: look at appraisal policies."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister._cli.evidence import read_policy
from cloister.attestation.lint import lint as find
from cloister.errors import CloisterError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look at appraisal policies.")

FOUND: Final = 3
UNUSABLE: Final = 2


@app.callback()
def _policy() -> None:
    """Look at appraisal policies."""


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="Appraisal policy, TOML or JSON.")],
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Find policies that accept too much.

    Exit code 0: nothing serious; 3: it accepts too much; 2: it is not a policy.
    """
    try:
        findings = find(read_policy(file))
    except (OSError, ValueError, CloisterError) as error:
        typer.echo(f"unusable: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(f"{finding.severity}: {finding.where}: {finding.problem}; {finding.remedy}")
        typer.echo(f"{len(findings)} findings" if findings else "nothing found")
    if any(strict or finding.severity == "error" for finding in findings):
        raise typer.Exit(FOUND)
