"""An operation is a generator of the steps of `cloister.protocol.session`; a client drives it.

`@operation` makes of the generator a method that gives its result, and `awaited` makes of that method a
coroutine of `AsyncClient`: signature, documentation and flow stand in one place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from cloister.protocol.session import Step

if TYPE_CHECKING:
    from cloister.operations.flows import Flows

__all__ = ["Flow", "Operations", "awaited", "operation"]

T = TypeVar("T")
P = ParamSpec("P")
Flow = Generator[Step, Any, T]


class Operations:
    """Operations of a client, as methods that wait; a flow may use `_flows` and nothing else of it."""

    _flows: Flows

    @abstractmethod
    def _run(self, flow: Flow[T]) -> T: ...


Here = TypeVar("Here", bound=Operations)


def operation(flow: Callable[Concatenate[Here, P], Flow[T]]) -> Callable[Concatenate[Here, P], T]:
    """The method that carries a flow out and gives its result."""
    # Whoever asks for the signature is told what the method gives.
    flow.__annotations__["return"] = flow.__annotations__["return"].removeprefix("Flow[").removesuffix("]")

    @wraps(flow)
    def method(self: Here, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(flow(self, *args, **kwargs))

    return method


def awaited(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The same operation as a coroutine."""
    flow: Callable[..., Flow[T]] = method.__wrapped__  # type: ignore[attr-defined]

    @wraps(flow)
    async def coroutine(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._run(flow(self, *args, **kwargs))
        return result

    return coroutine
