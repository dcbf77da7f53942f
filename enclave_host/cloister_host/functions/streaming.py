"""Big batches: rows in, answers out slice by slice, no more than one slice in the making."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from msgspec import UNSET
from msgspec.structs import replace

from cloister.errors import ConfigurationError
from cloister_host.functions.invocation import Invocation
from cloister_host.functions.messages import Invoke
from cloister_host.functions.ports import Act
from cloister_host.functions.registry import Registry
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation
from cloister_host.policy import Grants
from cloister_host.store import Tx

__all__ = ["Streaming"]

ROWS_A_SLICE: Final = 1000


class Slices(Protocol):
    """Port: effects of one request, one after the other."""

    def begin(self) -> AbstractContextManager[Tx]:
        """A transaction that belongs to no slice."""
        ...

    def decided(self, tx: Tx, what: str, decide: Callable[[], bytes]) -> bytes:
        """What was decided when this was first asked for, or is now; the same for every repetition."""
        ...

    def once(self, index: int, work: Callable[[Act], object]) -> bytes:
        """Do one slice, or give what it gave before; returns its result as JSON."""
        ...


class Streaming:
    """Runs batch functions slice by slice; each has a receipt, a place in the log and a budget of its own."""

    def __init__(self, *, registry: Registry, invocation: Invocation, grants: Grants) -> None:
        self._registry = registry
        self._invocation = invocation
        self._grants = grants

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {"function.stream": Operation(Invoke, self.stream, effect=True, streamed=True)}

    def stream(self, caller: Caller, request: Invoke, slices: Slices) -> Iterator[bytes]:
        """Call a batch function; gives the result of `function.invoke` for each thousand rows.

        Raises:
            DeniedError: The caller may not invoke it.
            ConfigurationError: There is no such function, it is no batch function, or columns differ.
        """
        name = request.function.partition("@")[0]
        with slices.begin() as tx:
            self._grants.require(
                tx,
                caller,
                "invoke",
                f"function/{name}",
                digest=lambda: self._registry.digest(tx, caller.tenant, request.function),
            )
            # One digest for the whole, whatever happens to the alias meanwhile or before it is sent again.
            digest = slices.decided(tx, "digest", lambda: self._digest(tx, caller, request)).decode()
        for index, part in enumerate(_parts(request, f"{name}@{digest}")):
            yield slices.once(index, lambda act, part=part: self._invocation.invoke(caller, part, act))  # type: ignore[misc]

    def _digest(self, tx: Tx, caller: Caller, request: Invoke) -> bytes:
        return self._registry.resolve(tx, caller.tenant, request.function).digest.encode()


def _parts(request: Invoke, function: str) -> Iterator[Invoke]:
    columns: dict[str, list[Any]] = {} if request.columns is UNSET else request.columns
    everything: list[Any] = [*columns.values(), *request.context.values()]
    lengths = {len(column) for column in everything if isinstance(column, list)}
    if not columns or len(lengths) != 1 or not all(isinstance(column, list) for column in everything):
        raise ConfigurationError(
            "a stream takes columns of one length", hint="one list an input and a context name"
        )
    for start in range(0, lengths.pop(), ROWS_A_SLICE):
        rows = slice(start, start + ROWS_A_SLICE)
        yield replace(
            request,
            function=function,
            columns={column: values[rows] for column, values in columns.items()},
            context={column: values[rows] for column, values in request.context.items()},
        )
