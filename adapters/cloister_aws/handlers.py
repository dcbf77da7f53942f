"""The decorator for Lambda handlers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from cloister.errors import ConfigurationError
from cloister.faas import Enclave, FunctionName, Invoker, data_free, hide_parameter, shared_client

__all__ = ["confidential"]

E_contra = TypeVar("E_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Handler(Protocol[E_contra, C_contra, R_co]):
    """A Lambda handler that is given its enclave."""

    def __call__(self, event: E_contra, context: C_contra, /, *, enclave: Enclave) -> R_co:
        """Handle one invocation."""
        ...


def confidential(
    function: str, *, client: Invoker | None = None
) -> Callable[[Handler[E_contra, C_contra, R_co]], Callable[[E_contra, C_contra], R_co]]:
    """Give a Lambda handler a confidential function to call, as its keyword-only parameter `enclave`.

    The platform sees an ordinary `(event, context)` handler. Nothing is imported, read or sent before the
    first call of `enclave`; then the host is appraised once per process. Lambda's retries of one event
    carry one request id, and so repeat no effect. What the handler raises is replaced by an error without
    data, since the runtime publishes messages and source lines.

    Powertools' `@idempotent` and tracing decorators go outside (above) this one.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        client: For tests; by default one `cloister.Client` per process, made from the settings.

    Raises:
        ConfigurationError: The name cannot be used, or the handler takes no `enclave`.
    """
    name = FunctionName.parse(function)

    def decorate(
        handler: Handler[E_contra, C_contra, R_co],
    ) -> Callable[[E_contra, C_contra], R_co]:
        if inspect.iscoroutinefunction(handler):
            raise ConfigurationError("Lambda awaits no handler", hint="write `def`, not `async def`")

        def wrapper(event: E_contra, context: C_contra, **others: Any) -> R_co:
            try:
                enclave = Enclave(
                    name,
                    client=shared_client if client is None else lambda: client,
                    invocation=_invocation(context),
                )
                return handler(event, context, enclave=enclave, **others)
            except BaseException as error:  # noqa: BLE001 (nothing the handler raises may get out as it is)
                clean = data_free(error)
            raise clean

        hide_parameter(handler, wrapper, "enclave")
        return wrapper

    return decorate


def _invocation(context: object) -> tuple[str, ...] | None:
    """What names this invocation over Lambda's own retries of it."""
    request_id = getattr(context, "aws_request_id", None)
    if not isinstance(request_id, str) or not request_id:
        return None
    return ("lambda", str(getattr(context, "invoked_function_arn", "")), request_id)
