"""From a handler to what Azure indexes and calls: the steps around it, once for plain and `async` ones.

The indexer reads names and annotations, and the runtime passes everything by name; so those stay, and
what is raised never leaves as it was: the runtime reports messages and source lines to its host.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable, Generator, Mapping
from typing import Any

from cloister.errors import ConfigurationError
from cloister.faas import data_free, hide_parameter
from cloister_azure.payload import resolved_hints

__all__ = ["Arguments", "Handler", "Steps", "trigger_of", "wrapped"]

Handler = Callable[..., Any]
Arguments = Mapping[str, Any]
Steps = Generator[Arguments, Any, Any]
"""What happens around a handler: yields the arguments to call it with, is sent its result or has thrown in
what it raised, as often as it likes; returns what Azure gets."""


def trigger_of(handler: Handler) -> str:
    """The name of the parameter that what triggered the function comes in: the first one.

    Raises:
        ConfigurationError: It is no plain function, or takes no parameter.
    """
    if not inspect.isfunction(handler):
        raise ConfigurationError(
            "what is decorated is no function",
            hint="put it below @app.route, @app.queue_trigger and the like",
        )
    first = next(iter(inspect.signature(handler).parameters.values()), None)
    if first is None or first.kind is not first.POSITIONAL_OR_KEYWORD:
        raise ConfigurationError("the handler's first parameter must be the one of its trigger")
    return first.name


def wrapped(
    handler: Handler,
    steps: Callable[[Arguments], Steps],
    *,
    hidden: str | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> Handler:
    """Put steps around a handler; what gets out, result or error, is fit for the platform.

    Args:
        handler: A function, plain or `async`.
        steps: Begins the steps of one invocation. For an `async` handler they run in a thread, so that they
            may wait.
        hidden: Keyword-only parameter that is given by the steps, and that Azure does not see.
        annotations: Those in which the result differs from the handler.

    Raises:
        ConfigurationError: The handler has no such parameter, or its annotations cannot be resolved.
    """
    names = tuple(inspect.signature(handler).parameters)
    hints = {**resolved_hints(handler), **(annotations or {})}

    def begin(args: tuple[Any, ...], kwargs: Arguments) -> _Run:
        return _Run(steps({**dict(zip(names, args, strict=False)), **kwargs}))

    wrap = _asynchronous if inspect.iscoroutinefunction(handler) else _synchronous
    wrapper = wrap(handler, begin)
    if hidden is not None:
        hide_parameter(handler, wrapper, hidden)
    else:
        functools.update_wrapper(wrapper, handler)
        del wrapper.__wrapped__  # type: ignore[attr-defined]
        wrapper.__signature__ = inspect.signature(handler)  # type: ignore[attr-defined]
    # Azure's indexer would look names up in this module, not in the handler's.
    wrapper.__annotations__ = {name: _indexable(hint) for name, hint in hints.items() if name != hidden}
    return wrapper


def _indexable(hint: Any) -> Any:
    """`list[X]` as `typing.List[X]`, which is the one that Azure's indexer knows."""
    several: Any = typing.List  # noqa: UP006 (as it says)
    return several[typing.get_args(hint)[0]] if typing.get_origin(hint) is list else hint


def _synchronous(handler: Handler, begin: Begin) -> Handler:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            run = begin(args, kwargs)
            while (call := run.next()) is not None:
                try:
                    run.result = handler(**call)
                except BaseException as error:  # noqa: BLE001 (the steps decide what becomes of it)
                    run.error = error
        except BaseException as error:  # noqa: BLE001 (nothing the handler raises may get out as it is)
            clean = data_free(error)
        else:
            return run.result
        raise clean

    return wrapper


def _asynchronous(handler: Handler, begin: Begin) -> Handler:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            run = begin(args, kwargs)
            while (call := await asyncio.to_thread(run.next)) is not None:
                try:
                    run.result = await handler(**call)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001 (as above)
                    run.error = error
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (as above)
            clean = data_free(error)
        else:
            return run.result
        raise clean

    return wrapper


class _Run:
    """One invocation's steps, between calls of its handler."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.result: Any = None
        self.error: BaseException | None = None

    def next(self) -> Arguments | None:
        """Go on with what the handler gave or raised; None at the end, when `result` is the answer."""
        try:
            if self.error is None:
                return self._steps.send(self.result)
            error, self.error = self.error, None
            return self._steps.throw(error)
        except StopIteration as stop:  # which no thread could raise to an event loop
            self.result = stop.value
            return None


Begin = Callable[[tuple[Any, ...], Arguments], _Run]
