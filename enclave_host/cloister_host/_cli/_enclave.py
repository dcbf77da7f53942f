"""A host that has no network of its own, and `cloister host parent`, which is its network."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["enclave", "outbound_of", "parent"]


def enclave(
    context: typer.Context,
    inbound: Annotated[
        list[str] | None,
        typer.Option(
            help="In an enclave: LISTEN=TARGET carries what the parent sends: vsock:8787=127.0.0.1:8787."
        ),
    ] = None,
    outbound: Annotated[
        str,
        typer.Option(help="In an enclave: the parent's proxy, as in vsock:3:5000; all egress goes there."),
    ] = "",
    forward: Annotated[
        list[str] | None,
        typer.Option(
            help="In an enclave: LISTEN=HOST:PORT reaches a database or a KMS through the parent, "
            "LISTEN alone is its HTTP proxy. Repeatable."
        ),
    ] = None,
) -> None:
    """Run an enclave host."""
    from cloister_host.relay.network import enclave_network  # noqa: PLC0415 (keeps --help fast)

    context.obj = outbound
    network = enclave_network(inbound=tuple(inbound or ()), outbound=outbound, forwards=tuple(forward or ()))
    context.with_resource(network)


def outbound_of(context: typer.Context) -> str:
    """The parent's proxy, as `cloister host --outbound` was given it."""
    return str(context.obj or "")


def parent(
    listen: Annotated[str, typer.Option(help="Where clients connect.")] = "127.0.0.1:8787",
    enclave: Annotated[str, typer.Option(help="The enclave's --inbound: vsock:CID:PORT.")] = "vsock:16:8787",
    proxy: Annotated[
        str, typer.Option(help="Where the enclave asks for connections, the port of its --outbound.")
    ] = "vsock:5000",
    allow: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT at public addresses; *.example.com:443 and *:443 too. Repeatable."),
    ] = None,
    allow_private: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT that may have any address, such as a database. Repeatable."),
    ] = None,
) -> None:
    """Be the network of an enclave, on the machine that started it; only ciphertext passes here."""
    import asyncio  # noqa: PLC0415 (keeps --help fast)

    from cloister_host.relay.endpoint import Endpoint  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.relay.parent import ParentProxy  # noqa: PLC0415 (keeps --help fast)
    from cloister_host.relay.relay import Relay, run, to  # noqa: PLC0415 (keeps --help fast)

    way_out = ParentProxy(allow=tuple(allow or ()), allow_private=tuple(allow_private or ()))
    relays = [
        Relay(Endpoint.parse(listen).listen(), to(Endpoint.parse(enclave))),
        Relay(Endpoint.parse(proxy).listen(), way_out.connect),
    ]
    typer.echo(f"{listen} leads to the enclave at {enclave}, which asks for connections at {proxy}")
    asyncio.run(run(relays))
