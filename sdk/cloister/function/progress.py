"""How far a function is: told to whoever asks for its job."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["progress"]

_listeners: list[Callable[[int, int], None]] = []
"""Who hears of it: in a worker the host, in a test nobody."""


def progress(done: int, total: int) -> None:
    """Say that `done` of `total` steps are finished; seen by whoever may see the job.

    Outside a host it does nothing. It is an output: count steps of the work, never say anything about
    the data.

    Raises:
        ValueError: Not `0 <= done <= total`.
    """
    if not 0 <= done <= total:
        raise ValueError("progress() takes 0 <= done <= total")
    for listener in _listeners:
        listener(done, total)
