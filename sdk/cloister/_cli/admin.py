"""Administration: deliveries."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from cloister._cli._client import call, show

__all__ = ["GROUPS"]

delivery = typer.Typer(help="Deliveries to other applications.", no_args_is_help=True)

GROUPS: Final = {"delivery": delivery}


@delivery.command("list")
def delivery_list() -> None:
    """List deliveries: pending, done and given up."""
    show(call("delivery.list", {}), "deliveries")


@delivery.command("replay")
def delivery_replay(
    delivery_id: Annotated[str, typer.Argument(help="What `cloister delivery list` shows.")],
) -> None:
    """Send a delivery that was given up once more, under the same id."""
    show(call("delivery.replay", {"delivery_id": delivery_id}))
