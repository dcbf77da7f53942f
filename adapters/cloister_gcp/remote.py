"""BigQuery remote functions: one declaration serves the endpoint and writes its DDL.

Contract: https://cloud.google.com/bigquery/docs/remote-functions#input_format
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, NamedTuple, Protocol

from cloister.columns import invoke
from cloister.errors import CloisterError, ConfigurationError, FunctionError
from cloister.faas import FunctionName, Invoker, data_free, idempotency_key, shared_client
from cloister_gcp.ddl import create_function
from cloister_gcp.types import (
    CONTEXT_TYPES,
    MALFORMED,
    MAX_CONTEXT_CHARS,
    check_type,
    context_text,
    from_sql,
    is_text,
    to_sql,
)

__all__ = ["Declaration", "Endpoint", "remote_function"]

OnRowError = Literal["null", "fail"]

MAX_BODY_BYTES: Final = 32 * 1024 * 1024  # what Cloud Run takes
MAX_REPLY_BYTES: Final = 15 * 1024 * 1024
MAX_ROWS: Final = 50_000  # the host's limit of one batch
MAX_REQUEST_ID_CHARS: Final = 1024
MAX_MESSAGE_BYTES: Final = 900  # of 1 KB for the whole `errorMessage` document
_ARGUMENT: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED: Final = frozenset({"context", "idempotency_key"})

log = logging.getLogger("cloister_gcp")

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

    def __call__(self, request: HttpRequest, /) -> HttpResponse:
        """Answer one request of BigQuery."""
        ...

    def ddl(self, function: str, *, connection: str, endpoint: str, max_batching_rows: int = ...) -> str:
        """The `CREATE FUNCTION` statement; see `Declaration.ddl`."""
        ...


class _Request(NamedTuple):
    request_id: str
    caller: str
    calls: list[list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A remote function: its SQL side, and the confidential batch function behind it."""

    function: FunctionName
    args: Mapping[str, type]
    context: tuple[str, ...]
    returns: type
    on_row_error: OnRowError

    def __post_init__(self) -> None:
        if not self.args:
            raise ConfigurationError("a remote function has at least one argument")
        for name, kind in self.args.items():
            if not _ARGUMENT.fullmatch(name) or name in _RESERVED:
                raise ConfigurationError(
                    f"the argument name {name!r} cannot be used", hint="use a-z, 0-9 and '_'"
                )
            check_type(kind, f"argument {name!r}")
        check_type(self.returns, "`returns`")
        for name in self.context:
            if self.args.get(name) not in CONTEXT_TYPES:
                raise ConfigurationError(
                    f"the context {name!r} is no argument of type str, int or bool", hint="name it in `args`"
                )
        if self.on_row_error not in {"null", "fail"}:
            raise ConfigurationError("on_row_error is 'null' or 'fail'")

    def ddl(self, function: str, *, connection: str, endpoint: str, max_batching_rows: int = 10_000) -> str:
        """The statement that makes this endpoint an SQL function.

        Args:
            function: `dataset.name` or `project.dataset.name`.
            connection: `location.connection` or `project.location.connection`.
            endpoint: Where it is served, https.
            max_batching_rows: Rows a request, so calls to the enclave a query.

        Raises:
            ConfigurationError: A name or the endpoint cannot be used.
        """
        return create_function(
            function,
            args=self.args,
            returns=self.returns,
            connection=connection,
            endpoint=endpoint,
            max_batching_rows=max_batching_rows,
        )

    def replies(self, body: bytes, invoker: Invoker) -> list[Any]:
        """Answer one request of BigQuery: as many replies as calls, in one call to the enclave.

        A row with a NULL in it answers NULL. A row that is malformed or does not open answers NULL or fails
        the query, as declared. An outage is never a NULL: it raises, and BigQuery tries again. Repeated
        requests have their effect once.

        Raises:
            CloisterError: The query fails, with a message that carries no data.
        """
        request = _parse(body, width=len(self.args))
        replies: list[Any] = [None] * len(request.calls)
        failed: Counter[str] = Counter()
        rows: list[tuple[int, list[Any]]] = []
        for index, call in enumerate(request.calls):
            if any(value is None for value in call):
                continue
            try:
                rows.append((index, self._row(call)))
            except ValueError:
                failed[MALFORMED] += 1
        if rows:
            failed += self._invoke(request, rows, replies, invoker)
        if failed:
            counts = ", ".join(f"{code}: {count}" for code, count in sorted(failed.items()))
            if self.on_row_error == "fail":
                raise FunctionError(
                    f"{failed.total()} of {len(request.calls)} rows failed ({counts})",
                    hint="on_row_error='null' shows which",
                )
            log.warning("rows failed and answered NULL: %s", counts)
        return replies

    def _row(self, call: Sequence[Any]) -> list[Any]:
        values = [from_sql(value, kind) for value, kind in zip(call, self.args.values(), strict=True)]
        for name, value in zip(self.args, values, strict=True):
            # Refused here, or the host would refuse the whole batch for it.
            if name in self.context and len(context_text(value)) > MAX_CONTEXT_CHARS:
                raise ValueError(MALFORMED)
        return values

    def _invoke(
        self, request: _Request, rows: Sequence[tuple[int, list[Any]]], replies: list[Any], invoker: Invoker
    ) -> Counter[str]:
        columns = dict(zip(self.args, zip(*(values for _, values in rows), strict=True), strict=True))
        answered = invoke(
            invoker,
            str(self.function),
            {name: column for name, column in columns.items() if name not in self.context},
            rows=len(rows),
            context={name: [context_text(value) for value in columns[name]] for name in self.context},
            idempotency_key=idempotency_key(
                "bigquery", request.caller, request.request_id, str(self.function)
            ),
        )
        for position, (index, _) in enumerate(rows):
            if position not in answered.errors:
                replies[index] = to_sql(answered.values[position], self.returns)
        return Counter(answered.errors.values())


def remote_function(
    function: str,
    *,
    args: Mapping[str, type],
    returns: type,
    context: Sequence[str] = (),
    on_row_error: OnRowError = "fail",
    client: Invoker | None = None,
) -> Endpoint:
    """Declare a BigQuery remote function over a confidential batch function.

    The result is the entry point of a Cloud Run function. Who may call it is decided by Cloud Run: require
    authentication, and give `roles/run.invoker` to the connection's service account alone.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        args: SQL arguments in order: `Sealed`, `str`, `int`, `float` or `bool`. Those that are not context
            are the function's inputs.
        returns: `bool`, `str`, `int`, `float`, `Token` or `Sealed`, agreeing with the output class.
        context: Arguments that the sealed ones are bound to.
        on_row_error: What a row that does not open does: answer NULL, or fail the query.
        client: For tests; by default one `cloister.Client` per process, made from the settings.

    Raises:
        ConfigurationError: The declaration cannot be used.
    """
    declaration = Declaration(
        function=FunctionName.parse(function),
        args=dict(args),
        context=tuple(context),
        returns=returns,
        on_row_error=on_row_error,
    )

    # A real function, since functions-framework accepts nothing else as a target.
    def endpoint(request: HttpRequest, /) -> HttpResponse:
        try:
            # One byte more than allowed tells a longer body without reading it.
            body = request.stream.read(MAX_BODY_BYTES + 1)
            replies = declaration.replies(body, client if client is not None else shared_client())
            document = json.dumps({"replies": replies})
            if len(document) > MAX_REPLY_BYTES:
                raise ConfigurationError("the replies are too large", hint="lower max_batching_rows")
        except Exception as error:  # noqa: BLE001 (nothing of it may reach the query as it is)
            return _refusal(data_free(error))
        return document, 200, {"Content-Type": "application/json"}

    endpoint.__name__ = declaration.function.name.replace("-", "_")
    endpoint.__doc__ = f"Answer BigQuery by {declaration.function}."
    endpoint.declaration = declaration  # type: ignore[attr-defined]
    endpoint.ddl = declaration.ddl  # type: ignore[attr-defined]
    return endpoint  # type: ignore[return-value]


def _refusal(error: BaseException) -> HttpResponse:
    """BigQuery retries 503 and shows the message of anything else; it is never given data."""
    retryable = isinstance(error, CloisterError) and error.retryable
    code = error.code if isinstance(error, CloisterError) else "error"
    message = f"{code}: {error}".encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    log.error("request failed: %s", message)
    document = json.dumps({"errorMessage": message}, ensure_ascii=False)
    return document, 503 if retryable else 400, {"Content-Type": "application/json"}


def _parse(body: bytes, *, width: int) -> _Request:
    hint = "only BigQuery calls this endpoint"
    if len(body) > MAX_BODY_BYTES:
        raise ConfigurationError("the request is too large", hint="lower max_batching_rows")
    try:
        members = json.loads(body)
        request_id, calls, caller = members["requestId"], members["calls"], members.get("caller", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigurationError("this is no remote function request", hint=hint) from None
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_REQUEST_ID_CHARS:
        raise ConfigurationError("the request has no requestId", hint=hint)
    if not isinstance(caller, str) or len(caller) > MAX_REQUEST_ID_CHARS or not is_text(request_id + caller):
        raise ConfigurationError("the request's caller is not text", hint=hint)
    if not isinstance(calls, list) or len(calls) > MAX_ROWS:
        raise ConfigurationError(f"a request has at most {MAX_ROWS} calls", hint="lower max_batching_rows")
    if not all(isinstance(call, list) and len(call) == width for call in calls):
        raise ConfigurationError(
            f"a call has another number of arguments than the {width} declared",
            hint="make the SQL function anew: cloister gcp ddl",
        )
    return _Request(request_id, caller, calls)
