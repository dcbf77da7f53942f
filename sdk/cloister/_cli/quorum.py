"""`cloister quorum`: which acts need the approval of others."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from cloister._cli._client import call, show

__all__ = ["app"]

HOUR_SECONDS: Final = 3600

app = typer.Typer(no_args_is_help=True, help="Which acts need the approval of others, and of how many.")


@app.command("set")
def quorum_set(
    act: Annotated[str, typer.Argument(help="key.destroy, function.deploy, policy.change ...")],
    *,
    approvals: Annotated[int, typer.Option(help="How many others must approve it; 0 frees it.")],
    hours: Annotated[int, typer.Option(help="How long a proposal stands.")] = 24,
) -> None:
    """Set one rule. Once there is one, every change of the rules needs the strictest rule's approvals."""
    payload = {"act": act, "approvals": approvals, "lifetime_seconds": hours * HOUR_SECONDS}
    show(call("quorum.set", payload), "rules")


@app.command("show")
def quorum_show() -> None:
    """Show the rules in force."""
    show(call("quorum.show", {}), "rules")
