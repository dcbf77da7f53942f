"""The decorator for functions that call the enclave."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Literal

from cloister.errors import CloisterError, ConfigurationError, HandlerError
from cloister.faas import AsyncEnclave, Enclave, FunctionName, Invoker, data_free, shared_client
from cloister.logs import error_fields
from cloister.telemetry import operation
from cloister_azure.payload import resolved_hints
from cloister_azure.responses import http_response, output, problem
from cloister_azure.triggers import delivery_of, is_http, records_of
from cloister_azure.wrapping import Arguments, Handler, Steps, trigger_of, wrapped

__all__ = ["confidential"]

log = logging.getLogger("cloister.azure")

Per = Literal["event", "record"]
OnError = Literal["raise", "answer"]


def confidential(
    function: str, *, per: Per = "event", on_error: OnError = "raise", client: Invoker | None = None
) -> Callable[[Handler], Handler]:
    """Give a function a confidential function to call, as its keyword-only parameter `enclave`.

    It goes below the decorators of `azure.functions`; the function's first parameter is its trigger's. Azure
    sees an ordinary function. Nothing is imported, read or sent before the first call of `enclave`; then the
    host is appraised once per process. What the function returns gets the shape that its trigger wants: see
    `cloister_azure.responses`. What it raises is replaced by an error without data, since the runtime
    reports messages and source lines.

    A message, event or blob that Azure delivers again repeats no effect: its calls carry the same
    idempotency keys. Nothing names a repeated HTTP request: pass a key that your caller gives.

    `async def` functions get an `AsyncEnclave`.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        per: "record" calls the function once for each event of a batch (`cardinality="many"`), which the
            parameter's annotation then names alone: `event: func.EventHubEvent`. Every event is tried; then
            the first error is raised, so that a retry policy, or Service Bus, brings the batch again.
        on_error: "answer" turns Cloister's own errors into HTTP problems for HTTP triggers.
        client: For tests; by default one `cloister.Client` per process, made from the settings.

    Raises:
        ConfigurationError: The name cannot be used, or the function takes no `enclave`.
    """
    name = FunctionName.parse(function)
    if per not in {"event", "record"} or on_error not in {"raise", "answer"}:
        raise ConfigurationError('per is "event" or "record", on_error is "raise" or "answer"')

    def decorate(handler: Handler) -> Handler:
        adapted = _Adapted(
            handler=handler.__name__ if inspect.isfunction(handler) else "",
            trigger=trigger_of(handler),
            is_async=inspect.iscoroutinefunction(handler),
            function=name,
            client=shared_client if client is None else lambda: client,
            answers_errors=on_error == "answer",
        )
        return wrapped(
            handler,
            _observed(adapted.each if per == "record" else adapted.once),
            hidden="enclave",
            annotations=_indexed(handler, adapted.trigger, per),
        )

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapted:
    """A function between what Azure passes and what Azure wants back."""

    handler: str
    trigger: str
    is_async: bool
    function: FunctionName
    client: Callable[[], Invoker]
    answers_errors: bool

    def once(self, arguments: Arguments) -> Steps:
        """One call for what came in."""
        value = arguments[self.trigger]
        if not is_http(value):
            return output((yield {**arguments, "enclave": self._enclave(value)}))
        try:
            return http_response((yield {**arguments, "enclave": self._enclave(value)}))
        except Exception as error:
            clean = data_free(error)
            if not (self.answers_errors and isinstance(clean, CloisterError)) or isinstance(
                clean, HandlerError
            ):
                raise
        return problem(clean)

    def each(self, arguments: Arguments) -> Steps:
        """One call for each record of a batch, in order; then the first error, if there was one."""
        results: list[Any] = []
        first: BaseException | None = None
        for position, record in enumerate(records_of(arguments[self.trigger])):
            call = {**arguments, self.trigger: record, "enclave": self._enclave(record)}
            try:
                results.append((yield call))
            except Exception as error:  # noqa: BLE001 (one record must not keep the others from being handled)
                clean = data_free(error)
                log.warning("record %d of the batch failed: %s", position, clean, extra=error_fields(clean))
                first = first or clean
        if first is not None:
            raise first
        kept = [output(result) for result in results if result is not None]
        return kept or None

    def _enclave(self, value: Any) -> Enclave | AsyncEnclave:
        parts = delivery_of(value)
        app = os.environ.get("WEBSITE_SITE_NAME", "")
        invocation = None if parts is None else ("azure", app, self.handler, *parts)
        enclave = Enclave(self.function, client=self.client, invocation=invocation)
        return AsyncEnclave(enclave) if self.is_async else enclave


def _observed(steps: Callable[[Arguments], Steps]) -> Callable[[Arguments], Steps]:
    def run(arguments: Arguments) -> Steps:
        with operation("azure_handler"):
            return (yield from steps(arguments))

    return run


def _indexed(handler: Handler, trigger: str, per: Per) -> dict[str, Any]:
    """Annotations as the indexer checks them: of what Azure passes, and of what is returned in the end."""
    import azure.functions as func  # noqa: PLC0415 (where functions are decorated with it)

    hints = resolved_hints(handler)
    changed: dict[str, Any] = {}
    if per == "record" and trigger in hints:
        changed[trigger] = GenericAlias(list, (hints[trigger],))
    result = hints.get("return")
    if result is None or result is type(None):
        return changed
    if inspect.isclass(hints.get(trigger)) and issubclass(hints[trigger], func.HttpRequest):
        return {**changed, "return": func.HttpResponse}
    is_azures = getattr(result, "__module__", "").startswith("azure.")
    return changed if result in {str, bytes} or is_azures else {**changed, "return": str}
