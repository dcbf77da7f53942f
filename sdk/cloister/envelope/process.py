"""What must not outlive the process that drew it: data keys for sealing.

A forked child, or a machine restored from a snapshot, would share limits with its twin without knowing.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forgetful", "drop_data_keys", "epoch", "on_drop"]


class Forgetful(Protocol):
    """Port: something that holds data keys."""

    def forget(self) -> None:
        """Drop them, and any lock that another thread may have held at the fork."""


_holders: WeakSet[Forgetful] = WeakSet()
_epoch = object()


def epoch() -> object:
    """Return the mark of this process's life; data keys with another mark no longer seal."""
    return _epoch


def on_drop(holder: Forgetful) -> None:
    """Register a holder, weakly."""
    _holders.add(holder)


def drop_data_keys() -> None:
    """Drop every data key of this process: called after a fork, and to be called after a snapshot restore."""
    global _epoch  # noqa: PLW0603 - the process is the thing whose state this is
    _epoch = object()
    for holder in list(_holders):
        holder.forget()


os.register_at_fork(after_in_child=drop_data_keys)
