"""What a handler holds of the enclave: one confidential function that can be called, and nothing else."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import rfc8785

from cloister import jose
from cloister.errors import ConfigurationError
from cloister.names import check_name

if TYPE_CHECKING:
    from cloister.reply import BatchReply, Reply

__all__ = ["AsyncEnclave", "Enclave", "FunctionName", "Invoker", "idempotency_key"]

_IS_DIGEST: Final = re.compile(r"[0-9a-f]{64}").fullmatch


class Invoker(Protocol):
    """Port: whoever calls confidential functions; `cloister.Client` is one."""

    def invoke(
        self,
        function: str,
        /,
        *,
        context: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
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
        **columns: Any,
    ) -> BatchReply:
        """Call a batch function; takes a `purpose` as `invoke` does."""
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
        self,
        *,
        context: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **inputs: Any,
    ) -> Reply:
        """Call the function.

        Args:
            context: Values for the context names that the function's manifest asks for.
            idempotency_key: Its effects happen once under this key. By default the platform's id of
                this invocation and the position of this call in it, so that a platform's retry of the
                invocation repeats no effect; give one if calls are made in no fixed order.
            purpose: What for. It is recorded, and grants can depend on it.
            inputs: The function's inputs by name.
        """
        key = idempotency_key or self._next_key()
        stated = _stated(purpose)
        return self._client().invoke(self._function, context=context, idempotency_key=key, **stated, **inputs)

    def batch(
        self,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **columns: Sequence[Any],
    ) -> BatchReply:
        """Call the function on columns: one value a row."""
        key = idempotency_key or self._next_key()
        return self._client().invoke_batch(
            self._function, context=context, idempotency_key=key, **_stated(purpose), **columns
        )

    def _next_key(self) -> str | None:
        ordinal = next(self._ordinal)
        if self._invocation is None:
            return None
        return idempotency_key(*self._invocation, self._function, str(ordinal))

    def __repr__(self) -> str:
        return f"Enclave({self._function!r})"


class AsyncEnclave:
    """`Enclave` for `async def` handlers: calls are awaited, and may be gathered.

    The calls run in threads over the same client as those of synchronous handlers.
    """

    __slots__ = ("_enclave",)

    def __init__(self, enclave: Enclave) -> None:
        self._enclave = enclave

    def __call__(
        self,
        *,
        context: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **inputs: Any,
    ) -> Coroutine[Any, Any, Reply]:
        """Call the function; see `Enclave`. The position counts from here, not from when it is awaited."""
        import asyncio  # noqa: PLC0415 (10 ms, for those who await)

        key = idempotency_key or self._enclave._next_key()  # noqa: SLF001 (one class in two forms)
        return asyncio.to_thread(
            self._enclave, context=context, idempotency_key=key, purpose=purpose, **inputs
        )

    def batch(
        self,
        *,
        context: Mapping[str, Sequence[str]] | None = None,
        idempotency_key: str | None = None,
        purpose: str | None = None,
        **columns: Sequence[Any],
    ) -> Coroutine[Any, Any, BatchReply]:
        """Call the function on columns; see `Enclave`."""
        import asyncio  # noqa: PLC0415 (as above)

        key = idempotency_key or self._enclave._next_key()  # noqa: SLF001 (as above)
        return asyncio.to_thread(
            self._enclave.batch, context=context, idempotency_key=key, purpose=purpose, **columns
        )

    def __repr__(self) -> str:
        return f"Async{self._enclave!r}"


def _stated(purpose: str | None) -> dict[str, Any]:
    return {} if purpose is None else {"purpose": purpose}


def idempotency_key(*parts: str) -> str:
    """A key that is the same exactly where all parts are; no part can be read from it."""
    return jose.b64url_encode(hashlib.sha256(rfc8785.dumps(["cloister.idempotency.v1", *parts])).digest())
