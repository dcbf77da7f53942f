"""Run a host's application under uvicorn, in this thread or in one of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["running", "serve"]

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
START_SECONDS: Final = 30
DRAIN_SECONDS: Final = 10


def serve(
    app: Starlette,
    *,
    host: str,
    port: int,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    tls_elsewhere: bool = False,
) -> None:
    """Serve until a signal ends it; requests in flight are finished first.

    Raises:
        ConfigurationError: The address is not loopback and there is no TLS.
    """
    if host not in LOOPBACK and tls_certificate is None and not tls_elsewhere:
        raise ConfigurationError(
            "refusing to listen outside loopback without TLS",
            hint="give --tls-certificate and --tls-key, or --tls-elsewhere behind a gateway that ends TLS",
        )
    _server(app, host=host, port=port, certificate=tls_certificate, key=tls_key).run()


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """Serve on a free loopback port from a thread of its own; gives the URL."""
    server = _server(app, host="127.0.0.1", port=0)
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
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _server(
    app: Starlette, *, host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            ws="none",
        )
    )
