"""The tree of commands; a group of another module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module, metadata
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from cloister._cli import admin, values

__all__ = ["build"]

OWN: Final = (
    "audit",
    "backup",
    "evidence",
    "function",
    "grant",
    "group",
    "holder",
    "issuer",
    "key",
    "object",
    "policy",
    "principal",
    "proposal",
    "proxy",
    "quorum",
    "receipt",
    "secret",
    "share",
    "signer",
    "tenant",
    "token-policy",
    "witness",
)

COMPLETION: Final = frozenset({"install_completion", "show_completion"})


def build(plugins: Mapping[str, EntryPoint], missing: Mapping[str, str]) -> typer.Typer:
    """Put the command line together.

    Args:
        plugins: Command groups of installed packages.
        missing: Packages to install, by the command they would add.
    """
    loaders: dict[str, Callable[[], typer.Typer]] = {
        **{name: partial(_own, name) for name in OWN},
        **{name: entry.load for name, entry in plugins.items()},
        **{name: partial(_install_line, name, package) for name, package in missing.items()},
    }

    class Groups(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return sorted({*super().list_commands(ctx), *loaders})

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            load = loaders.get(cmd_name)
            found = super().get_command(ctx, cmd_name) if load is None else _below(load())
            return found and _for_machines(found)

    app = typer.Typer(
        name="cloister",
        cls=Groups,
        help="Serverless functions that work on data they can never read.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, group in admin.GROUPS.items():
        app.add_typer(group, name=name)
    values.register(app)
    return app


def _version(asked: bool) -> None:  # noqa: FBT001 (called by typer)
    if asked:
        typer.echo(f"cloister {metadata.version('cloister')}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serverless functions that work on data they can never read."""


def _below(app: typer.Typer) -> Any:
    """A command below the root, which alone offers to install completion."""
    command = typer.main.get_command(app)
    command.params = [param for param in command.params if param.name not in COMPLETION]
    return command


def _for_machines(command: Any) -> Any:
    """Every command takes `--json`: where it has no meaning of its own, for errors (`explain`)."""
    below = getattr(command, "commands", {})
    for child in below.values():
        _for_machines(child)
    if not below and not any("--json" in param.opts for param in command.params):
        command.params.append(_json_option())
    return command


def _json_option() -> Any:
    """The option as typer makes it, to be lent to a command whose function does not know it."""
    lender = typer.Typer(add_completion=False)

    @lender.command()
    def _lend(
        *,
        as_json: Annotated[
            bool,
            typer.Option("--json", help="Write errors as JSON; results that are documents are JSON anyway."),
        ] = False,
    ) -> None:
        """Lends its option."""

    option = typer.main.get_command(lender).params[0]
    option.expose_value = False
    return option


def _own(name: str) -> typer.Typer:
    app: typer.Typer = import_module(f"cloister._cli.{name.replace('-', '_')}").app
    return app


def _install_line(name: str, package: str) -> typer.Typer:
    app = typer.Typer()

    @app.command(
        help=f"Needs another package: pip install '{package}'.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def absent() -> None:
        typer.echo(f"`cloister {name}` needs another package: pip install '{package}'", err=True)
        raise typer.Exit(2)

    return app
