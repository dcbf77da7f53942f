"""A proxy over a real client, on a port that the system chose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from cloister.proxy.address import Address
from cloister.proxy.app import Limits, Proxy
from cloister.proxy.guard import Guard, host_names
from cloister.proxy.server import LOCAL_NAMES, server_of
from cloister.secret import Secret

__all__ = ["TOKEN", "RunningProxy", "running_proxy"]

TOKEN = "the-token-of-this-test"


@dataclass
class RunningProxy:
    url: str
    lines: list[Any] = field(default_factory=list)

    def client(self, **headers: str) -> httpx.Client:
        """An HTTP client that shows the token."""
        shown = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
        return httpx.Client(base_url=self.url, headers=shown, timeout=120)


@contextmanager
def running_proxy(client: Any, *, limits: Limits | None = None) -> Iterator[RunningProxy]:
    with Address.parse("127.0.0.1:0").bind() as listener:
        port = listener.getsockname()[1]
        running = RunningProxy(f"http://127.0.0.1:{port}")
        guard = Guard(token=Secret(TOKEN.encode()), hosts=host_names(LOCAL_NAMES, port))
        server = server_of(Proxy(client, guard, limits or Limits(), running.lines.append))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield running
        finally:
            server.should_exit = True
            thread.join()
