"""`cloister proposal`: exact acts that wait for the approval of others."""

from __future__ import annotations

from typing import Annotated

import typer

from cloister._cli._client import call, show

__all__ = ["app"]

Proposal = Annotated[str, typer.Argument(help="The proposal's id, from whoever asked.")]

app = typer.Typer(no_args_is_help=True, help="Acts that wait for the approval of others.")


@app.command("list")
def proposal_list() -> None:
    """List your own proposals, and those you may approve."""
    show(call("proposal.list", {}), "proposals")


@app.command("show")
def proposal_show(proposal: Proposal) -> None:
    """Show one: who asks for what, and who has approved it."""
    show(call("proposal.show", {"proposal": proposal}))


@app.command("approve")
def proposal_approve(proposal: Proposal) -> None:
    """Approve exactly this act. Look at it first: `cloister proposal show`."""
    show(call("proposal.approve", {"proposal": proposal}))


@app.command("reject")
def proposal_reject(proposal: Proposal) -> None:
    """End a proposal; whoever asked for it can withdraw it so too."""
    show(call("proposal.reject", {"proposal": proposal}))
