"""The one client of a process, and what a snapshot or a fork must not carry over."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from cloister.envelope.process import drop_data_keys

if TYPE_CHECKING:
    from cloister.client import Client

__all__ = ["forget_shared_client", "shared_client"]


class _Shared:
    """The client of this process; a forked child makes its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: Client | None = None


_shared = _Shared()


def _forget_after_fork() -> None:
    global _shared  # noqa: PLW0603 (a lock held by another thread at the fork is lost with its owner)
    _shared = _Shared()


os.register_at_fork(after_in_child=_forget_after_fork)


def shared_client() -> Client:
    """The client that all handlers of this process share, made from the settings on first use.

    Raises:
        ConfigurationError: A setting is missing or cannot be used.
    """
    with _shared.lock:
        if _shared.client is None:
            from cloister.client import Client  # noqa: PLC0415 (TLS and all: for the first call, not for a cold start)

            _shared.client = Client.from_env()
        return _shared.client


def forget_shared_client() -> None:
    """Drop what this process has drawn or learned: its shared client, its connections and all data keys.

    For the moment before a snapshot is taken and the one after it was restored: many processes will
    wake up as this one.
    """
    with _shared.lock:
        client, _shared.client = _shared.client, None
    if client is not None:
        client.close()
    drop_data_keys()
