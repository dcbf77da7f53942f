"""Run the proxy: the token in a file of its owner's, and uvicorn on a socket that is already bound."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloister.client import Client
from cloister.errors import ConfigurationError
from cloister.proxy.address import Address
from cloister.proxy.app import Limits, Proxy
from cloister.proxy.guard import Guard, host_names
from cloister.secret import Secret

if TYPE_CHECKING:
    import socket

    import uvicorn

__all__ = ["serve", "server_of", "token_files"]

TOKEN_BYTES: Final = 32
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_CONNECTIONS: Final = 512
IDLE_SECONDS: Final = 30
DRAIN_SECONDS: Final = 10
LOCAL_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


def serve(
    client: Client,
    address: Address,
    *,
    token_file: Path,
    limits: Limits,
    log: Callable[[Mapping[str, Any]], None],
    names: tuple[str, ...] = (),
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve until a signal ends it; requests in flight are finished first.

    Args:
        client: As whom everything is done.
        address: Where it listens.
        token_file: Where the token is put; a file for curl stands beside it while the proxy runs.
        limits: How much it takes.
        log: Told of each request.
        names: More names that `Host` may say.
        ready: Told the URL as soon as it can be asked.

    Raises:
        ConfigurationError: It cannot listen there, or the token cannot be written.
    """
    listener = address.bind()
    try:
        with listener, token_files(token_file) as token:
            port = None if address.path else listener.getsockname()[1]
            guard = Guard(token=token, hosts=host_names((*LOCAL_NAMES, *names), port))
            proxy = Proxy(client, guard, limits, log)
            ready(f"http://{_authority(listener, address)}")
            server_of(proxy).run(sockets=[listener])
    finally:
        if address.path is not None:
            address.path.unlink(missing_ok=True)


def server_of(proxy: Proxy) -> uvicorn.Server:
    """The server of a proxy, strict about HTTP and silent about what it carries.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import uvicorn  # noqa: PLC0415 (only the proxy needs it)
    except ImportError:
        raise ConfigurationError("the proxy needs an extra", hint="pip install 'cloister[cli]'") from None
    return uvicorn.Server(
        uvicorn.Config(
            proxy,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )


@contextmanager
def token_files(path: Path) -> Iterator[Secret]:
    """Draw a token and keep it in two new files, for the time of the block.

    `path` holds the token, `path` with `.curl` behind it what `curl --config` reads, so that the token stands
    in no command line, where other users see it.

    Raises:
        ConfigurationError: They cannot be written.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    curl = f'header = "Authorization: Bearer {token}"\nheader = "Content-Type: application/json"\n'
    files = {path: token, path.with_name(f"{path.name}.curl"): curl + "silent\nshow-error\nfail-with-body"}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, content in files.items():
            _write(file, content)
        yield Secret(token.encode())
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror})", hint="--token-file"
        ) from None
    finally:
        for file in files:
            with suppress(OSError):
                file.unlink()


def _write(file: Path, content: str) -> None:
    """A new file of its owner's; what a proxy left behind that was killed, or a link, is not written to."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(content + "\n")


def _authority(listener: socket.socket, address: Address) -> str:
    if address.path is not None:
        return "localhost"
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
