"""The network of an enclave: a way in for its parent's connections, and ways out through the parent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cloister.errors import ConfigurationError
from cloister_host.relay.endpoint import Endpoint
from cloister_host.relay.relay import Relay, relaying, to
from cloister_host.relay.tunnel import TARGET, tunnel

__all__ = ["enclave_network"]


@contextmanager
def enclave_network(
    *, inbound: Sequence[str] = (), outbound: str = "", forwards: Sequence[str] = ()
) -> Iterator[None]:
    """Carry what comes from the parent to the host, and what the host needs through the parent.

    Args:
        inbound: `LISTEN=TARGET`: where the parent's connections come in, and where the host listens.
        outbound: Where the parent's proxy listens, `vsock:3:PORT`; empty for nowhere.
        forwards: What the host reaches besides the origins of functions, such as its database:
            `LISTEN=HOST:PORT`, or `LISTEN` alone for clients that speak to an HTTP proxy themselves.

    Raises:
        ConfigurationError: One is malformed, cannot be listened on, or there is no way out.
    """
    way_out = Endpoint.parse(outbound) if outbound else None
    relays = [*map(_inbound, inbound), *(_forward(forward, way_out) for forward in forwards)]
    if not relays:
        yield
        return
    with relaying(relays):
        yield


def _inbound(inbound: str) -> Relay:
    listen, _, target = inbound.partition("=")
    endpoint = Endpoint.parse(target)
    if not endpoint.is_local:
        raise ConfigurationError(
            "what comes in goes to a host in this enclave", hint="vsock:8787=127.0.0.1:8787"
        )
    return Relay(Endpoint.parse(listen).listen(), to(endpoint))


def _forward(forward: str, outbound: Endpoint | None) -> Relay:
    if outbound is None:
        raise ConfigurationError("there is nothing to forward through", hint="--outbound vsock:3:5000")
    listen, equals, target = forward.rpartition("=")
    endpoint = Endpoint.parse(listen if equals else target)
    if not endpoint.is_local:
        raise ConfigurationError(
            "a forward listens inside the enclave only",
            hint="127.0.0.1:3128, or unix:/run/postgresql/.s.PGSQL.5432=db.internal:5432",
        )
    if not equals:
        return Relay(endpoint.listen(), to(outbound))
    match = TARGET.fullmatch(target)
    if match is None:
        raise ConfigurationError("a forward is LISTEN=HOST:PORT", hint="127.0.0.1:5432=db.internal:5432")
    return Relay(endpoint.listen(), tunnel(outbound, match["host"].strip("[]"), int(match["port"])))
