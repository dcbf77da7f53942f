"""Run a host's application under uvicorn, and end it without losing a request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import uvicorn
from starlette.applications import Starlette

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["DRAIN_SECONDS", "Listening", "local_door", "running", "serve"]

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
START_SECONDS: Final = 30
DRAIN_SECONDS: Final = 10.0
BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where a host listens, and how it stops.

    Attributes:
        address: Host name or IP address.
        port: TCP port.
        tls_certificate: PEM chain.
        tls_key: PEM key.
        tls_elsewhere: TLS ends in front of this host.
        notice_seconds: After the signal to stop, how long requests are still taken while `/readyz` already
            says no, so that whoever balances the load looks elsewhere first.
        drain_seconds: Then, how long requests in flight may take to end.
    """

    address: str
    port: int
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_elsewhere: bool = False
    notice_seconds: float = 0.0
    drain_seconds: float = DRAIN_SECONDS

    @property
    def url(self) -> str:
        """What a client on this network would call it; empty where it listens at every address."""
        if self.address in {"0.0.0.0", "::", ""}:  # noqa: S104 (compared with, not listened on)
            return ""
        scheme = "http" if self.tls_certificate is None else "https"
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{scheme}://{address}:{self.port}"

    def require_safe(self) -> None:
        """Refuse to be reached from elsewhere without TLS.

        Raises:
            ConfigurationError: The address is not loopback and there is no TLS.
        """
        if self.address not in LOOPBACK and self.tls_certificate is None and not self.tls_elsewhere:
            raise ConfigurationError(
                "refusing to listen outside loopback without TLS",
                hint="give --tls-certificate and --tls-key, or --tls-elsewhere where a gateway ends TLS",
            )

    def bind(self) -> socket.socket:
        """The listening socket, for several processes to share.

        Raises:
            ConfigurationError: The address cannot be used.
        """
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        try:
            bound = socket.create_server((self.address, self.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {self.address}:{self.port} ({error.strerror})",
                hint="--listen ADDRESS:PORT",
            ) from None
        bound.set_inheritable(True)
        return bound


class _Server(uvicorn.Server):
    """Tells when it is about to stop, and takes requests a little longer if it is meant to."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        notice_seconds: float,
        started: Callable[[], object] | None,
        stopping: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self._tell_started = started
        self._notice_seconds = notice_seconds
        self._stopping = stopping
        self._told = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        if self._tell_started is not None:
            self._tell_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal tell, and stop after the notice; on the second stop now."""
        if self._told or not self._notice_seconds:
            self._stopping()
            super().handle_exit(sig, frame)
            return
        self._told = True
        self._stopping()
        timer = threading.Timer(self._notice_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def serve(
    app: Starlette,
    listening: Listening,
    *,
    listener: socket.socket | None = None,
    started: Callable[[], object] | None = None,
    stopping: Callable[[], object] = lambda: None,
) -> None:
    """Serve until a signal ends it; requests in flight are finished first.

    Args:
        app: The application.
        listening: Where, and how to stop.
        listener: A socket that listens already.
        started: Called once it accepts.
        stopping: Called once it is to stop.

    Raises:
        ConfigurationError: The address is not loopback and there is no TLS.
    """
    listening.require_safe()
    config = _config(
        app,
        host=listening.address,
        port=listening.port,
        certificate=listening.tls_certificate,
        key=listening.tls_key,
        drain_seconds=listening.drain_seconds,
    )
    server = _Server(config, notice_seconds=listening.notice_seconds, started=started, stopping=stopping)
    server.run(sockets=None if listener is None else [listener])


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """Serve on a free loopback port from a thread of its own; gives the URL."""
    server = uvicorn.Server(_config(app, host="127.0.0.1", port=0))
    with _in_thread(server):
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


@contextmanager
def local_door(app: Starlette, name: str) -> Iterator[str]:
    """Serve on an abstract socket of this machine, for the processes beside this one; gives its door."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        listener.bind(f"\0{name}")
        listener.listen()
        config = _config(app, fd=listener.fileno(), lifespan="off")
        with _in_thread(uvicorn.Server(config)):
            yield f"unix:@{name}"


@contextmanager
def _in_thread(server: uvicorn.Server) -> Iterator[None]:
    thread = threading.Thread(target=server.run, name="cloister-host")
    thread.start()
    try:
        waiting = threading.Event()
        for _ in range(START_SECONDS * 100):
            if server.started or not thread.is_alive():
                break
            waiting.wait(0.01)
        if not server.started:
            raise UnavailableError("the embedded host did not start")
        yield
    finally:
        server.should_exit = True
        thread.join()


def _config(
    app: Starlette,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    fd: int | None = None,
    lifespan: Literal["auto", "off"] = "auto",
    certificate: Path | None = None,
    key: Path | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        fd=fd,
        lifespan=lifespan,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=drain_seconds,  # type: ignore[arg-type] # a time-out of asyncio, which takes any number
        ws="none",
    )
