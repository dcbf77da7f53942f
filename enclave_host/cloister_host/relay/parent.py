"""The parent's side of the enclave's way out: connects to what it was told to allow, and to nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import h11

from cloister.errors import CloisterError, ConfigurationError, DeniedError, UnavailableError
from cloister_host.egress.addresses import Address, check_addresses
from cloister_host.relay.endpoint import Stream
from cloister_host.relay.tunnel import CONNECTED, MAX_HEAD_BYTES, NOT_ALLOWED, TARGET

__all__ = ["ParentProxy"]

_RULE: Final = re.compile(
    r"(?:\*|(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]):(?:\*|[0-9]{1,5})"
)
_STATUS: Final = {DeniedError: NOT_ALLOWED, ConfigurationError: 400}

Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]


async def system_lookup(host: str, port: int) -> Sequence[Address]:
    """Every address of a name, as the system knows it."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found))


class ParentProxy:
    """The parent's side: opens connections to what it was told to allow, and nothing else.

    Args:
        allow: `HOST:PORT` of origins at public addresses; `*.example.org:443` and `*:443` stand for more.
        allow_private: The same for those that may have any address, such as a database nearby.
        lookup: Name to addresses.

    Raises:
        ConfigurationError: A rule is malformed.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str] = (),
        allow_private: Sequence[str] = (),
        lookup: Lookup = system_lookup,
    ) -> None:
        for rule in (*allow, *allow_private):
            if not _RULE.fullmatch(rule):
                raise ConfigurationError(
                    "what the enclave may reach is named HOST:PORT", hint="api.example.com:443 or *:443"
                )
        self._allow = tuple(allow)
        self._allow_private = tuple(allow_private)
        self._lookup = lookup

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Stream:
        """Read whereto, connect, and say so.

        Raises:
            CloisterError: It is not allowed, malformed or out of reach; the enclave was told the status.
        """
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            host, port = await _asked(http, reader)
            stream = await self._open(host, port)
        except CloisterError as error:
            status = _STATUS.get(type(error), 502)
            if http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                writer.write(http.send(h11.Response(status_code=status, headers=[("Content-Length", "0")])))
                await writer.drain()
            raise
        writer.write(http.send(h11.Response(status_code=CONNECTED, headers=[])))
        stream[1].write(http.trailing_data[0])
        return stream

    async def _open(self, host: str, port: int) -> Stream:
        private = any(_matches(rule, host, port) for rule in self._allow_private)
        if not private and not any(_matches(rule, host, port) for rule in self._allow):
            raise DeniedError("the parent was not told to allow this", hint="--allow HOST:PORT")
        found = await self._lookup(host.strip("[]"), port)
        for address in check_addresses(found, allow_private=private):
            try:
                return await asyncio.open_connection(str(address), port)
            except OSError:
                continue
        raise UnavailableError("no address of the name answers")


async def _asked(http: h11.Connection, reader: asyncio.StreamReader) -> tuple[str, int]:
    malformed = ConfigurationError("this is no CONNECT request")
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await reader.read(MAX_HEAD_BYTES))
    except h11.RemoteProtocolError:
        raise malformed from None
    if not isinstance(event, h11.Request) or event.method != b"CONNECT":
        raise malformed
    match = TARGET.fullmatch(event.target.decode("latin-1"))
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise malformed
    return match["host"].lower(), int(match["port"])


def _matches(rule: str, host: str, port: int) -> bool:
    name, _, number = rule.rpartition(":")
    if number not in {"*", str(port)}:
        return False
    if name.startswith("*."):
        return host.endswith(name[1:]) and len(host) > len(name) - 1
    return name in {"*", host}
