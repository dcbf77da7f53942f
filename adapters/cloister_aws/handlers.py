"""The decorator for Lambda handlers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, overload

from cloister.errors import CloisterError, ConfigurationError, HandlerError
from cloister.faas import (
    AsyncEnclave,
    Enclave,
    FunctionName,
    Invoker,
    hide_parameter,
    scrubbed,
    shared_client,
)
from cloister.faas.answers import plain
from cloister.telemetry import operation
from cloister_aws import snapshot
from cloister_aws.events import HTTP, Source, source_of
from cloister_aws.records import Processor, process_records
from cloister_aws.responses import problem, shaped

__all__ = ["confidential"]

E = TypeVar("E")
C = TypeVar("C")
E_contra = TypeVar("E_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
Per = Literal["event", "record"]
OnError = Literal["raise", "answer"]


class Handler(Protocol[E_contra, C_contra]):
    """A Lambda handler that is given its enclave."""

    def __call__(self, event: E_contra, context: C_contra, /, *, enclave: Enclave) -> Any:
        """Handle one event, or one record of it."""
        ...


class AsyncHandler(Protocol[E_contra, C_contra]):
    """The same as a coroutine."""

    def __call__(self, event: E_contra, context: C_contra, /, *, enclave: AsyncEnclave) -> Awaitable[Any]:
        """Handle one event, or one record of it."""
        ...


class Decorator(Protocol):
    """What `confidential(...)` returns."""

    @overload
    def __call__(self, handler: Handler[E, C]) -> Callable[[E, C], Any]: ...
    @overload
    def __call__(self, handler: AsyncHandler[E, C]) -> Callable[[E, C], Any]: ...


def confidential(
    function: str,
    *,
    per: Per = "event",
    processor: Processor | None = None,
    on_error: OnError = "raise",
    client: Invoker | None = None,
) -> Decorator:
    """Give a Lambda handler a confidential function to call, as its keyword-only parameter `enclave`.

    The platform sees an ordinary `(event, context)` handler. Nothing is imported, read or sent before the
    first call of `enclave`; then the host is appraised once per process. What the handler returns gets the
    shape its event source wants: see `cloister_aws.responses`. What it raises is replaced by an error
    without data, since the runtime publishes messages and source lines.

    A delivery that AWS repeats (a retried invocation, an SQS message that comes again) repeats no effect:
    its calls carry the same idempotency keys.

    `async def` handlers get an `AsyncEnclave` and run in an event loop of their own for each event.
    Powertools' `@idempotent`, tracing and logging decorators go outside (above) this one.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        per: "record" calls the handler once for each record of SQS, Kinesis, DynamoDB streams, SNS or S3.
            For the first three, the answer lists what failed; the event source mapping must then have
            `FunctionResponseTypes: [ReportBatchItemFailures]`, or Lambda takes failed records for done.
        processor: Powertools' `BatchProcessor` (or its FIFO sibling), which then iterates, gives the
            handler its data classes and answers.
        on_error: "answer" turns Cloister's own errors into HTTP problems where the source waits for HTTP;
            keep "raise" below `@idempotent`, which would store the answer.
        client: For tests; by default one `cloister.Client` per process, made from the settings.

    Raises:
        ConfigurationError: The name cannot be used, or the handler takes no `enclave`.
    """
    name = FunctionName.parse(function)
    if per not in {"event", "record"} or on_error not in {"raise", "answer"}:
        raise ConfigurationError('per is "event" or "record", on_error is "raise" or "answer"')
    if processor is not None and per != "record":
        raise ConfigurationError("a processor calls its handler for each record", hint='say per="record"')

    def decorate(handler: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        snapshot.register()
        adapted = _Adapted(
            handler=handler,
            function=name,
            client=shared_client if client is None else lambda: client,
            processor=processor,
            per_record=per == "record",
            answers_errors=on_error == "answer",
        )

        def wrapper(event: Any, context: Any, **others: Any) -> Any:
            return adapted.handle(event, context, others)

        hide_parameter(handler, wrapper, "enclave")
        return wrapper

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapted:
    """A handler between what Lambda passes and what Lambda wants back."""

    handler: Callable[..., Any]
    function: FunctionName
    client: Callable[[], Invoker]
    processor: Processor | None
    per_record: bool
    answers_errors: bool

    def handle(self, event: Any, context: Any, others: Mapping[str, Any]) -> Any:
        """Handle one invocation; what gets out, result or error, is fit for the platform."""
        source = source_of(event)
        try:
            with operation("lambda_handler", current=True, source=source.value):
                return scrubbed(lambda: self._respond(source, event, context, others))
        except CloisterError as error:
            if not self.answers_errors or isinstance(error, HandlerError) or source not in HTTP:
                raise
            return problem(source, event, error)

    def _respond(self, source: Source, event: Any, context: Any, others: Mapping[str, Any]) -> Any:
        arn = str(getattr(context, "invoked_function_arn", ""))
        if not self.per_record:
            key = _event_key(source, event, context)
            invocation = None if key is None else ("lambda", arn, *key)
            return shaped(source, event, self._call(event, context, invocation, others))
        return process_records(
            event,
            lambda record, key: plain(self._call(record, context, ("lambda", arn, *key), others)),
            processor=self.processor,
            context=context,
        )

    def _call(
        self, event: Any, context: Any, invocation: tuple[str, ...] | None, others: Mapping[str, Any]
    ) -> Any:
        enclave = Enclave(self.function, client=self.client, invocation=invocation)
        if not inspect.iscoroutinefunction(self.handler):
            return self.handler(event, context, enclave=enclave, **others)
        import asyncio  # noqa: PLC0415 (10 ms, for those who await)

        # A loop of its own: no task of one invocation lives on into the next.
        return asyncio.run(self.handler(event, context, enclave=AsyncEnclave(enclave), **others))


def _event_key(source: Source, event: Any, context: object) -> tuple[str, ...] | None:
    """What names this event over all its deliveries."""
    if source is Source.EVENTBRIDGE and isinstance(event.get("id"), str):
        return (source.value, *(str(event.get(name, "")) for name in ("source", "id", "replay-name")))
    request_id = getattr(context, "aws_request_id", None)
    return (request_id,) if isinstance(request_id, str) and request_id else None
