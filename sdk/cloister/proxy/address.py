"""Where the proxy may listen. What comes in is plaintext, so it stays on this machine."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cloister.errors import ConfigurationError

__all__ = ["Address"]

BACKLOG: Final = 128
HIGHEST_PORT: Final = 65_535
_TCP: Final = re.compile(r"(?:\[([0-9a-f:]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})").fullmatch
_LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A TCP address and port, or the path of a Unix socket.

    Attributes:
        host: An IP address, or empty for a Unix socket.
        port: 0 lets the system choose.
    """

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str, *, beyond_loopback: bool = False) -> Self:
        """Read `127.0.0.1:8788`, `[::1]:8788` or `unix:/run/cloister.sock`.

        Args:
            text: The address.
            beyond_loopback: Accept an address that other machines may reach.

        Raises:
            ConfigurationError: It is none, or not on loopback.
        """
        if text.startswith("unix:"):
            path = Path(text.removeprefix("unix:"))
            if not path.is_absolute():
                raise ConfigurationError(
                    "the path of a Unix socket is absolute", hint="unix:/run/cloister.sock"
                )
            return cls(path=path)
        found = _TCP(text)
        if found is None or int(found[3]) > HIGHEST_PORT:
            raise ConfigurationError(
                "this is no address to listen on",
                hint="127.0.0.1:8788, [::1]:8788 or unix:/run/cloister.sock",
            )
        host = found[1] or found[2]
        if host not in _LOOPBACK and not beyond_loopback:
            raise ConfigurationError(
                "the proxy takes plaintext, so it listens on loopback or a Unix socket only",
                hint="--beyond-loopback, if nobody else can reach this address",
            )
        return cls(host=_LOOPBACK.get(host, host), port=int(found[3]))

    def bind(self) -> socket.socket:
        """A listening socket; a Unix socket can be opened by its owner only.

        Raises:
            ConfigurationError: The address is taken, or is not one of this machine.
        """
        try:
            return self._bind_tcp() if self.path is None else _bind_unix(self.path)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigurationError(f"the proxy cannot listen there ({reason})", hint="--listen") from None

    def _bind_tcp(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        # The mask, not a later chmod: there is no moment in which somebody else can connect.
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_dead(path: Path) -> None:
    """Remove the socket of a proxy that is gone; one that answers stays, and binding fails."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(FileNotFoundError):
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
