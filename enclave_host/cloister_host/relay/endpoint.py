"""Where something listens or connects to: `HOST:PORT`, `unix:PATH` or `vsock:CID:PORT`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cloister.errors import ConfigurationError

__all__ = ["Endpoint", "Stream"]

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_BACKLOG: Final = 256
_MAX_PORT: Final = 65_535
_MAX_U32: Final = 2**32 - 1
# VMADDR_CID_ANY (vsock(7)): a listener takes connections for whatever CID this machine has.
_ANY_CID: Final = _MAX_U32
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One end of a stream.

    Attributes:
        kind: The family of the socket.
        host: A name or address of `tcp`, the path of `unix`, empty for `vsock`.
        cid: Of `vsock`: which machine (vsock(7)); 3 is the parent of a Nitro Enclave.
        port: Of `tcp` and `vsock`.
    """

    kind: Literal["tcp", "unix", "vsock"]
    host: str = ""
    cid: int = _ANY_CID
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an endpoint; `vsock:PORT` means any CID, for listeners.

        Raises:
            ConfigurationError: It is none.
        """
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest and "\0" not in rest:
            return cls(kind="unix", host=rest)
        if kind == "vsock":
            cid, _, port = rest.rpartition(":")
            numbers = (cid or str(_ANY_CID), port)
            if all(number.isascii() and number.isdecimal() for number in numbers):
                found = cls(kind="vsock", cid=int(numbers[0]), port=int(port))
                if max(found.cid, found.port) <= _MAX_U32:
                    return found
        elif kind != "unix":
            host, _, port = text.rpartition(":")
            if host and port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT:
                return cls(kind="tcp", host=host.removeprefix("[").removesuffix("]"), port=int(port))
        raise ConfigurationError(
            "this is no address to listen on or connect to",
            hint="127.0.0.1:8787, unix:/run/cloister.sock, vsock:8787 (listen) or vsock:3:5000",
        )

    def __str__(self) -> str:
        match self.kind:
            case "unix":
                return f"unix:{self.host}"
            case "vsock":
                return f"vsock:{self.port}" if self.cid == _ANY_CID else f"vsock:{self.cid}:{self.port}"
            case "tcp":
                return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it. A vsock is reached by the parent, which is not trusted."""
        return self.kind == "unix" or self.host in _LOOPBACK

    def listen(self) -> socket.socket:
        """A listening socket; one at a UNIX path is for this user alone.

        Raises:
            ConfigurationError: The address cannot be listened on.
        """
        try:
            match self.kind:
                case "tcp":
                    family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                    return socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
                case "unix":
                    return self._listen_unix()
                case "vsock":
                    return self._listening(socket.AF_VSOCK, (self.cid, self.port))
        except (OSError, AttributeError) as error:
            raise ConfigurationError(
                f"cannot listen on {self} ({type(error).__name__})",
                hint="is the address this machine's, and free?",
            ) from None

    def connect(self, timeout_seconds: float) -> socket.socket:
        """A connected socket with this timeout; blocking.

        Raises:
            OSError: It cannot be reached.
        """
        if self.kind == "tcp":
            return socket.create_connection((self.host, self.port), timeout=timeout_seconds)
        family, address = (
            (socket.AF_UNIX, self.host) if self.kind == "unix" else (socket.AF_VSOCK, (self.cid, self.port))
        )
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.settimeout(timeout_seconds)
            found.connect(address)
        except BaseException:
            found.close()
            raise
        return found

    async def open(self) -> Stream:
        """A connected stream of the running loop.

        Raises:
            OSError: It cannot be reached.
        """
        match self.kind:
            case "tcp":
                return await asyncio.open_connection(self.host, self.port)
            case "unix":
                return await asyncio.open_unix_connection(self.host)
            case "vsock":
                found = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
                try:
                    found.settimeout(0)
                    await asyncio.get_running_loop().sock_connect(found, (self.cid, self.port))
                    return await asyncio.open_connection(sock=found)
                except BaseException:
                    found.close()
                    raise

    def _listen_unix(self) -> socket.socket:
        path = Path(self.host)
        # A socket that nobody listens on any more stays in the file system; anything else is not ours.
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
                path.unlink()
        found = self._listening(socket.AF_UNIX, self.host)
        path.chmod(0o600)
        return found

    @staticmethod
    def _listening(family: socket.AddressFamily, address: str | tuple[int, int]) -> socket.socket:
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.bind(address)
            found.listen(_BACKLOG)
        except BaseException:
            found.close()
            raise
        return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True
