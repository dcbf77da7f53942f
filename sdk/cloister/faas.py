"""What the adapters share: a process's one client, the injected `Enclave`, and errors without data.

A platform's runtime posts what a handler raises to the cloud's own logs: the message, and the source
lines of the traceback. So nothing a handler raises leaves it as it was; see `data_free`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, Protocol

import rfc8785

from cloister import jose
from cloister.client import Client
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    HandlerError,
    QuorumNeededError,
    error_from_code,
)
from cloister.function.names import check_name
from cloister.reply import BatchReply, Reply

__all__ = [
    "Enclave",
    "FunctionName",
    "Invoker",
    "data_free",
    "hide_parameter",
    "idempotency_key",
    "shared_client",
]

_IS_DIGEST: Final = re.compile(r"[0-9a-f]{64}").fullmatch
PASSED_ON: Final = (KeyboardInterrupt, GeneratorExit)
OUR_PACKAGES: Final = frozenset({"cloister", "cloister_aws", "cloister_gcp", "cloister_azure"})
STDLIB: Final = str(Path(os.__file__).parent) + os.sep


class Invoker(Protocol):
    """Port: whoever calls confidential functions; `cloister.Client` is one."""

    def invoke(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **inputs: Any,
    ) -> Reply:
        """Call a confidential function."""
        ...

    def invoke_batch(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        **columns: Sequence[Any],
    ) -> BatchReply:
        """Call a batch function."""
        ...


class FunctionName(NamedTuple):
    """`name@alias`, or `name@<digest>` for one bundle and no other."""

    name: str
    selector: str

    @classmethod
    def parse(cls, text: str) -> FunctionName:
        """Read what a decorator was given.

        Raises:
            ConfigurationError: It is neither form.
        """
        name, _, selector = text.partition("@")
        check_name(name, "function")
        if not selector:
            raise ConfigurationError(
                "the function is named without an alias", hint=f"write {name + '@prod'!r}, or name a digest"
            )
        if not _IS_DIGEST(selector):
            check_name(selector, "alias")
        return cls(name, selector)

    @property
    def digest(self) -> str | None:
        """The one digest that is meant, if the name says so."""
        return self.selector if _IS_DIGEST(self.selector) else None

    def __str__(self) -> str:
        return f"{self.name}@{self.selector}"


class Enclave:
    """One confidential function, as a handler holds it: it can be called, and nothing else.

    There is no way from here to a plaintext: a handler passes sealed values in and gets out what the
    function's output class allows.
    """

    __slots__ = ("_client", "_function", "_invocation", "_ordinal")

    def __init__(
        self, function: FunctionName, *, client: Callable[[], Invoker], invocation: Sequence[str] | None
    ) -> None:
        self._function = str(function)
        self._client = client
        self._invocation = invocation
        self._ordinal = itertools.count()

    def __call__(
        self, *, context: Mapping[str, str] | None = None, idempotency_key: str | None = None, **inputs: Any
    ) -> Reply:
        """Call the function.

        Args:
            context: Values for the context names that the function's manifest asks for.
            idempotency_key: Its effects happen once under this key. By default the platform's id of
                this invocation and the position of this call in it, so that a platform's retry of the
                invocation repeats no effect; give one if calls are made in no fixed order.
            inputs: The function's inputs by name.
        """
        key = idempotency_key or self._next_key()
        return self._client().invoke(self._function, context=context, idempotency_key=key, **inputs)

    def batch(
        self,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        **columns: Sequence[Any],
    ) -> BatchReply:
        """Call the function on columns: one value a row."""
        key = idempotency_key or self._next_key()
        return self._client().invoke_batch(self._function, context=context, idempotency_key=key, **columns)

    def _next_key(self) -> str | None:
        ordinal = next(self._ordinal)
        if self._invocation is None:
            return None
        return idempotency_key(*self._invocation, self._function, str(ordinal))

    def __repr__(self) -> str:
        return f"Enclave({self._function!r})"


def idempotency_key(*parts: str) -> str:
    """A key that is the same exactly where all parts are; no part can be read from it."""
    return jose.b64url_encode(hashlib.sha256(rfc8785.dumps(["cloister.idempotency.v1", *parts])).digest())


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
            _shared.client = Client.from_env()
        return _shared.client


def hide_parameter(handler: Callable[..., Any], wrapper: Callable[..., Any], name: str) -> None:
    """Make `wrapper` look like `handler` without the keyword-only parameter `name`.

    Platforms read signatures and annotations to decide what they pass; what we inject is not theirs.

    Raises:
        ConfigurationError: The handler has no such parameter.
    """
    signature = inspect.signature(handler)
    parameter = signature.parameters.get(name)
    if parameter is None or parameter.kind is not parameter.KEYWORD_ONLY:
        raise ConfigurationError(
            f"the handler takes no keyword-only parameter {name!r}", hint=f"add `*, {name}` to its parameters"
        )
    functools.update_wrapper(wrapper, handler)
    # Whoever follows `__wrapped__` would find the hidden parameter again.
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    wrapper.__annotations__ = {key: hint for key, hint in handler.__annotations__.items() if key != name}
    visible = [p for p in signature.parameters.values() if p.name != name]
    wrapper.__signature__ = signature.replace(parameters=visible)  # type: ignore[attr-defined]


def data_free(error: BaseException) -> BaseException:
    """The error to raise in place of what a handler raised: no data in message, cause or source lines.

    Cloister's own errors keep type, code and message, which carry no data by construction. Of anything
    else only its type and place are told. Raise the result outside the `except` block, so that it
    refers to the original in no way.
    """
    if isinstance(error, PASSED_ON):
        return error
    if isinstance(error, CloisterError) and _raised_by_cloister(error.__traceback__):
        return error_from_code(
            error.code,
            str(error.args[0]),
            hint=error.hint,
            correlation_id=error.correlation_id,
            retryable=error.retryable,
            proposal_id=error.proposal_id if isinstance(error, QuorumNeededError) else "",
        )
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
