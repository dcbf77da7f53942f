"""`cloister proxy`: plaintext in, sealed calls out, for curl and other languages on this machine."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn

import typer

from cloister.client import Client
from cloister.proxy.address import Address
from cloister.proxy.app import Limits
from cloister.proxy.server import serve

__all__ = ["app"]

MEBIBYTE: Final = 1024 * 1024


def proxy(
    *,
    listen: Annotated[str, typer.Option(help="Loopback address and port, or unix:/PATH.")] = "127.0.0.1:8788",
    token_file: Annotated[
        Path, typer.Option(help="Where the token is put; FILE.curl beside it is for `curl --config`.")
    ] = Path(".cloister/proxy.token"),
    max_body_mib: Annotated[int, typer.Option(min=1, max=128, help="Largest request, in MiB.")] = 16,
    max_concurrent: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 16,
    host_name: Annotated[
        list[str] | None, typer.Option(help="One more name that Host may say; repeatable.")
    ] = None,
    beyond_loopback: Annotated[
        bool,
        typer.Option(
            "--beyond-loopback", help="Listen where other machines may reach it. It takes plaintext."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not log requests to standard error.")] = False,
) -> None:
    """Serve plain JSON on this machine and make attested, sealed calls of it. See docs/proxy.md.

    Whoever has the token acts as CLOISTER_TENANT's caller. Runs until it is interrupted.
    """
    address = Address.parse(listen, beyond_loopback=beyond_loopback)
    limits = Limits(max_body_bytes=max_body_mib * MEBIBYTE, max_concurrent=max_concurrent)
    with Client.from_env() as client:
        host = client.attest()

        def ready(url: str) -> None:
            where = f"{url} (through {address.path})" if address.path else url
            typer.echo(f"the proxy for {host.keyset.deployment} answers on {where}")
            typer.echo(f"its token is in {token_file}")
            sys.stdout.flush()

        # The server finishes what it is at and then lets the signal through: this is how that ends here.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        serve(
            client,
            address,
            token_file=token_file,
            limits=limits,
            log=_ignore if quiet else _log,
            names=tuple(host_name or ()),
            ready=ready,
        )


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise typer.Exit


def _log(line: Mapping[str, Any]) -> None:
    sys.stderr.write(json.dumps(line) + "\n")


def _ignore(_line: Mapping[str, Any]) -> None:
    pass


app = typer.Typer()
app.command()(proxy)
