"""Options of how a host listens and stops, and of the hosts beside it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.errors import ConfigurationError

if TYPE_CHECKING:
    from cloister_host.app import Host
    from cloister_host.server import Listening
    from cloister_host.settings import HostSettings

__all__ = [
    "Advertise",
    "DatabaseTimeout",
    "DrainNotice",
    "DrainSeconds",
    "Peer",
    "TlsCertificate",
    "TlsElsewhere",
    "TlsKey",
    "Workers",
    "listening_on",
    "serve_with",
]

Workers = Annotated[int, typer.Option(help="Processes that share this address.")]
DrainSeconds = Annotated[float, typer.Option(help="How long requests may take to end when it stops.")]
DrainNotice = Annotated[
    float,
    typer.Option(
        "--drain-notice-seconds",
        help="How long it still takes requests then, while /readyz already says no.",
    ),
]
Advertise = Annotated[
    list[str] | None,
    typer.Option(
        help="URL at which other hosts of this deployment reach this one; repeatable. "
        "By default the address it listens on."
    ),
]
Peer = Annotated[
    list[str] | None,
    typer.Option(help="URL of another host of this deployment, beside those in the store; repeatable."),
]
DatabaseTimeout = Annotated[
    float,
    typer.Option(
        "--database-timeout-seconds",
        help="After so long without an answer PostgreSQL counts as lost, and nothing is answered without it.",
    ),
]
TlsCertificate = Annotated[Path | None, typer.Option(help="PEM certificate chain.")]
TlsKey = Annotated[Path | None, typer.Option(help="PEM private key.")]
TlsElsewhere = Annotated[bool, typer.Option(help="TLS ends in front of this host.")]


def listening_on(
    listen: str,
    *,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_elsewhere: bool,
    notice_seconds: float,
    drain_seconds: float,
) -> Listening:
    """Where to listen.

    Raises:
        ConfigurationError: It is not an address and a port, or not safe.
    """
    from cloister_host.server import Listening  # noqa: PLC0415 (keeps --help fast)

    address, _, port = listen.rpartition(":")
    if not address or not port.isdecimal():
        raise ConfigurationError("--listen must be ADDRESS:PORT", hint="for example 127.0.0.1:8787")
    listening = Listening(
        address=address.strip("[]"),
        port=int(port),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_elsewhere=tls_elsewhere,
        notice_seconds=notice_seconds,
        drain_seconds=drain_seconds,
    )
    listening.require_safe()
    return listening


def serve_with(settings: HostSettings, listening: Listening, *, workers: int, announce: str) -> None:
    """Serve in this process, or start the processes that do; until a signal.

    Args:
        settings: Of the host.
        listening: Where.
        workers: How many processes.
        announce: What to call the address in the line that says that it serves.
    """
    from cloister_host.app import build  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.server import local_door, serve  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.supervisor import place  # noqa: PLC0415 (keeps --help fast)

    mine = place()
    if workers != 1 and mine is None:
        _supervise(listening, workers, outbound=settings.outbound)
        return
    if not settings.doors and listening.url:
        settings = replace(settings, doors=(listening.url,))
    with build(replace(settings, workers=workers)) as host, ExitStack() as stack:
        if mine is None or mine.number == 0:
            typer.echo(_announcement(host, announce))
        if mine is not None:
            # Beside the shared address, at which any of the processes answers.
            door = local_door(host.peer_app, f"cloister-{host.replicas.peers.id}")
            host.replicas.peers.add_door(stack.enter_context(door))
            mine.stop_with_supervisor()
        serve(
            host.app,
            listening,
            listener=None if mine is None else mine.listener,
            started=None if mine is None else mine.ready,
            stopping=host.stopping,
        )


def _announcement(host: Host, announce: str) -> str:
    return f"deployment {host.deployment} on {announce}, {host.machine.format} ({host.machine.environment})"


def _supervise(listening: Listening, workers: int, *, outbound: str) -> None:
    from cloister_host.supervisor import Supervisor, worker_command  # noqa: PLC0415 (keeps --help fast)

    arguments = sys.argv[sys.argv.index("serve") + 1 :]
    with listening.bind() as listener:
        Supervisor(
            worker_command(arguments, outbound=outbound),
            workers=workers,
            listener=listener,
            drain_seconds=listening.notice_seconds + listening.drain_seconds,
        ).run()
