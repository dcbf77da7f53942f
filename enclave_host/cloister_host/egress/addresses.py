"""Which addresses egress may connect to: defence in depth behind the authenticated name (PROTOCOL 10)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final, TypeAlias

from cloister.errors import DeniedError, UnavailableError

__all__ = ["Address", "Resolve", "check_addresses", "is_public", "system_resolver"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, float], Sequence[Address]]

_MAX_ADDRESSES: Final = 16
# Ranges that `is_global` lets pass: IPv6 addresses that stand for IPv4 ones (RFC 6052, 3056, 4380), old
# site-local ones (RFC 3879), and IPv4 ones at which clouds serve their machines' secrets (RFC 6890 2.2.2).
_REFUSED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
        "168.63.129.16/32",
        "192.0.0.0/24",
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is an ordinary one on the public Internet."""
    return (
        address.is_global
        and not address.is_multicast
        and not any(address.version == network.version and address in network for network in _REFUSED)
    )


def check_addresses(addresses: Sequence[Address], *, allow_private: bool) -> Sequence[Address]:
    """Return the addresses of a name if every one of them may be reached.

    One bad address refuses the name: who mixes public and private addresses wants the check to look at one
    and the connection to use another.

    Raises:
        DeniedError: One of them may not.
        UnavailableError: There are none.
    """
    if not addresses:
        raise UnavailableError("the origin's name has no address", hint="retry later")
    if not allow_private and not all(is_public(address) for address in addresses):
        raise DeniedError(
            "the origin's name leads to an address that is not public",
            hint="functions reach public addresses; a development host can allow private ones",
        )
    return addresses[:_MAX_ADDRESSES]


_resolvers: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="resolve")


def system_resolver(host: str, timeout_seconds: float) -> Sequence[Address]:
    """Ask the system for every A and AAAA record; its resolver knows no deadline, so it runs aside.

    Raises:
        UnavailableError: No answer, or none in time.
    """
    asked = _resolvers.submit(socket.getaddrinfo, host, None, 0, socket.SOCK_STREAM)
    try:
        found = asked.result(timeout=timeout_seconds)
    except (OSError, UnicodeError, FutureTimeoutError):
        asked.cancel()
        raise UnavailableError("the origin's name does not resolve", hint="retry later") from None
    # A zone index (fe80::1%eth0) says only that the address is link-local.
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found))
