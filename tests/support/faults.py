"""Crashes at every step of an act, and what the database holds afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloister_host.store import Tx
from support.host_world import HostWorld

__all__ = ["CrashError", "crash_at_every_step", "snapshot"]

_STEPS = ("_write", "execute", "execute_many", "delete")


class CrashError(BaseException):
    """The process dies here: no error handler of the host sees it as one of its own."""


@contextmanager
def _crash(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[list[int]]:
    """Die at one write of the store; counts those before."""
    count = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == step:
                raise CrashError
            return real(*arguments, **named)

        return write

    with monkeypatch.context() as patch:
        for name in _STEPS:
            patch.setattr(Tx, name, counted(getattr(Tx, name)))
        yield count


def snapshot(host: HostWorld, *tables: str) -> dict[str, list[Any]]:
    """Everything that stands in these tables."""
    return {table: sorted(map(repr, host.pen(f"SELECT * FROM {table}"))) for table in tables}


def crash_at_every_step(
    monkeypatch: pytest.MonkeyPatch, host: HostWorld, act: Callable[[], Any], *tables: str
) -> int:
    """Crash at the first write of an act, then at the second, ... until it is done.

    Each crash must leave the tables as they were. Returns at how many steps it died.
    """
    before = snapshot(host, *tables)
    step = 1
    while True:
        with _crash(monkeypatch, step):
            try:
                act()
            except CrashError:
                pass
            else:
                break
        assert snapshot(host, *tables) == before, f"half an act after a crash at write {step}"
        step += 1
    assert snapshot(host, *tables) != before, "the act did nothing"
    return step - 1
