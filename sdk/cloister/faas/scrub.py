"""Errors without data.

A platform's runtime posts what a handler raises to the cloud's own logs: the message, and the source
lines of the traceback. So nothing a handler raises leaves it as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, TypeVar

from cloister import errors
from cloister.errors import CloisterError, HandlerError, QuorumNeededError

__all__ = ["data_free", "scrubbed"]

T = TypeVar("T")

PASSED_ON: Final = (KeyboardInterrupt, GeneratorExit)
OUR_PACKAGES: Final = frozenset(
    {"cloister", "cloister_aws", "cloister_gcp", "cloister_azure", "cloister_spark"}
)
STDLIB: Final = str(Path(os.__file__).parent) + os.sep


def scrubbed(call: Callable[[], T]) -> T:
    """Call, and raise `data_free` of whatever is raised, with no reference to it."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 (nothing that user code raises may get out as it is)
        clean = data_free(error)
    raise clean


def data_free(error: BaseException) -> BaseException:
    """The error to raise in place of what a handler raised: no data in message, cause or source lines.

    Cloister's own errors keep type, code and message, which carry no data by construction. Of anything
    else only its type and place are told. Raise the result outside the `except` block, so that it
    refers to the original in no way.
    """
    if isinstance(error, PASSED_ON):
        return error
    if isinstance(error, CloisterError) and _raised_by_cloister(error.__traceback__):
        kind = type(error) if type(error).__module__ == errors.__name__ else CloisterError
        fresh = kind(
            str(error.args[0]),
            hint=error.hint,
            correlation_id=error.correlation_id,
            retryable=error.retryable,
        )
        if isinstance(error, QuorumNeededError) and isinstance(fresh, QuorumNeededError):
            fresh.proposal_id = error.proposal_id
        return fresh
    return HandlerError(
        f"the handler failed with {type(error).__name__}{_place(error.__traceback__)}",
        hint="its message is held back, since it may carry data",
    )


def _raised_by_cloister(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is ours: a user may put anything into an error of our types."""
    frames = _frames(trace)
    return bool(frames) and _is_ours(frames[-1][0])


def _place(trace: TracebackType | None) -> str:
    """The innermost line of the user's own code, as file name and line."""
    for frame, line in reversed(_frames(trace)):
        filename = frame.f_code.co_filename
        if not (_is_ours(frame) or filename.startswith(STDLIB) or "site-packages" in filename):
            return f" at {Path(filename).name}:{line}"
    return ""


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in OUR_PACKAGES


def _frames(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    frames = []
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return frames
