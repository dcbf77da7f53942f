"""BigQuery remote functions: one declaration serves the endpoint and writes its DDL.

Contract: https://cloud.google.com/bigquery/docs/remote-functions#input_format
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, Protocol, overload

from cloister.errors import CloisterError, ConfigurationError
from cloister.faas import Invoker, data_free, shared_client
from cloister.logs import error_fields
from cloister.telemetry import operation
from cloister_gcp.declaration import Declaration, OnRowError, signature_of
from cloister_gcp.request import RemoteRequest

__all__ = ["Endpoint", "SharedEndpoint", "remote_function", "remote_functions"]

MAX_REPLY_BYTES: Final = 15 * 1024 * 1024
MAX_MESSAGE_BYTES: Final = 900  # of 1 KB for the whole `errorMessage` document
_JSON: Final = {"Content-Type": "application/json"}

log = logging.getLogger("cloister.gcp")

HttpResponse = tuple[str, int, dict[str, str]]


class HttpRequest(Protocol):
    """What is read of a Flask request."""

    @property
    def stream(self) -> IO[bytes]:
        """The body."""
        ...


class Endpoint(Protocol):
    """A handler for functions-framework that knows its own DDL."""

    declaration: Declaration
    client: Callable[[], Invoker]

    def __call__(self, request: HttpRequest, /) -> HttpResponse:
        """Answer one request of BigQuery."""
        ...

    def ddl(self, function: str, *, connection: str, endpoint: str, max_batching_rows: int = ...) -> str:
        """The `CREATE FUNCTION` statement; see `Declaration.ddl`."""
        ...


class SharedEndpoint(Protocol):
    """A handler for functions-framework that serves several functions."""

    endpoints: Mapping[str, Endpoint]

    def __call__(self, request: HttpRequest, /) -> HttpResponse:
        """Answer one request of BigQuery."""
        ...


@overload
def remote_function(
    function: str,
    *,
    args: Mapping[str, Any],
    returns: Any,
    context: Sequence[str] = (),
    on_row_error: OnRowError = "fail",
    name: str | None = None,
    client: Invoker | None = None,
) -> Endpoint: ...
@overload
def remote_function(
    function: str,
    *,
    context: Sequence[str] = (),
    on_row_error: OnRowError = "fail",
    client: Invoker | None = None,
) -> Callable[[Callable[..., Any]], Endpoint]: ...
def remote_function(
    function: str,
    *,
    args: Mapping[str, Any] | None = None,
    returns: Any = None,
    context: Sequence[str] = (),
    on_row_error: OnRowError = "fail",
    name: str | None = None,
    client: Invoker | None = None,
) -> Endpoint | Callable[[Callable[..., Any]], Endpoint]:
    """Declare a BigQuery remote function over a confidential batch function.

    By its arguments, or as a decorator, by the annotations of a function without a body:

        @remote_function("ssn-breached@prod", context=["member_id"], on_row_error="null")
        def ssn_breached(ssn: Sealed, member_id: int) -> bool: ...

    The result is the entry point of a Cloud Run function. Who may call it is decided by Cloud Run: require
    authentication, and give `roles/run.invoker` to the connection's service account alone.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        args: SQL arguments in order: `Sealed`, `str`, `int`, `float`, `bool`, `bytes`, `Decimal`, `date`,
            `datetime`, `time`, `dict` (JSON), or the name of an SQL type. Those that are not context are
            the function's inputs. `T | None`: a NULL is passed on; else a row with one answers NULL.
        returns: One of these, or `Token`; it agrees with the output class.
        context: Arguments that the sealed ones are bound to.
        on_row_error: What a row that does not open does: answer NULL, or fail the query.
        name: What `user_defined_context` calls it; by default the function's name with underscores.
        client: For tests; by default one `cloister.Client` per process, made from the settings.

    Raises:
        ConfigurationError: The declaration cannot be used.
    """
    if (args is None) != (returns is None):
        raise ConfigurationError("`args` and `returns` go together", hint="or decorate a function")

    def declare(found: Mapping[str, Any], result: Any, called: str | None) -> Endpoint:
        declaration = Declaration.of(
            function, args=found, returns=result, context=context, on_row_error=on_row_error, name=called
        )
        return _endpoint(declaration, shared_client if client is None else lambda: client)

    if args is not None:
        return declare(args, returns, name)

    def decorate(handler: Callable[..., Any]) -> Endpoint:
        return declare(*signature_of(handler), name or handler.__name__)

    return decorate


def remote_functions(*endpoints: Endpoint) -> SharedEndpoint:
    """Serve several remote functions by one entry point; each one's DDL says which it means.

    Raises:
        ConfigurationError: Two have one name.
    """
    by_name = {endpoint.declaration.name: endpoint for endpoint in endpoints}
    if len(by_name) != len(endpoints) or not endpoints:
        raise ConfigurationError("two remote functions have one name", hint="name=... tells them apart")

    def answer(request: RemoteRequest) -> list[Any]:
        chosen = by_name.get(request.function)
        if chosen is None:
            raise ConfigurationError(
                "user_defined_context names no function of this endpoint",
                hint="make the SQL function anew: cloister gcp ddl",
            )
        return chosen.declaration.replies(request, chosen.client())

    # A real function, since functions-framework accepts nothing else as a target.
    def serve(request: HttpRequest, /) -> HttpResponse:
        """Answer BigQuery."""
        return _respond(request, answer)

    serve.endpoints = by_name  # type: ignore[attr-defined]
    return serve  # type: ignore[return-value]


def _endpoint(declaration: Declaration, client: Callable[[], Invoker]) -> Endpoint:
    def answer(request: RemoteRequest) -> list[Any]:
        if request.function not in {"", declaration.name}:
            raise ConfigurationError(
                "user_defined_context names another function than this endpoint serves",
                hint="make the SQL function anew: cloister gcp ddl",
            )
        return declaration.replies(request, client())

    # A real function, since functions-framework accepts nothing else as a target.
    def endpoint(request: HttpRequest, /) -> HttpResponse:
        return _respond(request, answer)

    endpoint.__name__ = declaration.name
    endpoint.__doc__ = f"Answer BigQuery by {declaration.function}."
    endpoint.declaration = declaration  # type: ignore[attr-defined]
    endpoint.ddl = declaration.ddl  # type: ignore[attr-defined]
    endpoint.client = client  # type: ignore[attr-defined]
    return endpoint  # type: ignore[return-value]


def _respond(request: HttpRequest, answer: Callable[[RemoteRequest], list[Any]]) -> HttpResponse:
    try:
        with operation("remote_function", current=True):
            document = json.dumps({"replies": answer(RemoteRequest.read(request.stream))})
            if len(document) > MAX_REPLY_BYTES:
                raise ConfigurationError("the replies are too large", hint="lower max_batching_rows")
    except Exception as error:  # noqa: BLE001 (nothing of it may reach the query as it is)
        return _refusal(data_free(error))
    return document, 200, dict(_JSON)


def _refusal(error: BaseException) -> HttpResponse:
    """BigQuery retries 503 and shows the message of anything else; it is never given data."""
    retryable = isinstance(error, CloisterError) and error.retryable
    code = error.code if isinstance(error, CloisterError) else "error"
    message = f"{code}: {error}".encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    log.error("request failed: %s", message, extra=error_fields(error))
    document = json.dumps({"errorMessage": message}, ensure_ascii=False)
    return document, 503 if retryable else 400, dict(_JSON)
