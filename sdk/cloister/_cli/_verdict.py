"""How commands say that something was accepted, refused or cannot be used: exit codes and JSON members."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import typer

__all__ = ["REFUSED", "UNUSABLE", "report", "unusable"]

REFUSED: Final = 3
UNUSABLE: Final = 2


def report(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a verdict: one JSON object, or lines for a person."""
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=True, default=str))
        return
    typer.echo(f"{result['verdict']}: {result['reason']}")
    for name in ("environment", "deployment"):
        if name in result:
            typer.echo(f"{name}: {result[name]}")
    for check in result.get("checks", ()):
        typer.echo(f"  checked      {check}")
    for line in result["not_checked"]:
        typer.echo(f"  NOT checked  {line}")


def unusable(reason: str, *, as_json: bool) -> typer.Exit:
    """Say that the input cannot be used; the caller raises what is returned."""
    report({"verdict": "unusable", "reason": reason, "claims": {}, "not_checked": []}, as_json=as_json)
    return typer.Exit(UNUSABLE)
