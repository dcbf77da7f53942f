"""The decorator for Cloud Run functions: HTTP, CloudEvents, Pub/Sub push, first generation events."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from cloister.errors import CloisterError, ConfigurationError, HandlerError
from cloister.faas import Enclave, FunctionName, Invoker, answers, hide_parameter, scrubbed, shared_client
from cloister.telemetry import operation
from cloister_gcp.events import delivery_of, is_http

__all__ = ["confidential"]

OnError = Literal["raise", "answer"]
Handler = Callable[..., Any]


def confidential(
    function: str, *, on_error: OnError = "raise", client: Invoker | None = None
) -> Callable[[Handler], Handler]:
    """Give a Cloud Run function a confidential function to call, as its keyword-only parameter `enclave`.

        @functions_framework.cloud_event
        @confidential("credit-forecast@prod")
        def forecast(event, *, enclave): ...

    It goes below the decorators of `functions_framework`, which see an ordinary function of one request, of
    one CloudEvent, or of `(data, context)`. Nothing is imported, read or sent before the first call of
    `enclave`; then the host is appraised once per process. To an HTTP request, what the function returns is
    the answer: JSON, text, bytes, `Sealed`, a reply, or whatever Flask takes. What it raises is replaced by
    an error without data, since the framework answers with its message and logs its source lines.

    An event that Google delivers again repeats no effect: its calls carry the same idempotency keys. Nothing
    names a repeated HTTP request: pass a key that your caller gives.

    Args:
        function: `name@alias`, or `name@<digest>` for one bundle.
        on_error: "answer" turns Cloister's own errors into HTTP problems, where somebody waits for an answer;
            an event that fails always raises, so that it comes again or goes to its dead letters.
        client: For tests; by default one `cloister.Client` per process, made from the settings.

    Raises:
        ConfigurationError: The name cannot be used, or the function takes no `enclave`.
    """
    name = FunctionName.parse(function)
    if on_error not in {"raise", "answer"}:
        raise ConfigurationError('on_error is "raise" or "answer"')

    def decorate(handler: Handler) -> Handler:
        if not inspect.isfunction(handler) or inspect.iscoroutinefunction(handler):
            raise ConfigurationError(
                "the handler is no plain function", hint="functions-framework calls def, not async def"
            )
        adapted = _Adapted(
            handler=handler,
            function=name,
            client=shared_client if client is None else lambda: client,
            answers_errors=on_error == "answer",
        )

        def wrapper(*arguments: Any) -> Any:
            return adapted.handle(arguments)

        hide_parameter(handler, wrapper, "enclave")
        return wrapper

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapted:
    """A function between what functions-framework passes and what it wants back."""

    handler: Handler
    function: FunctionName
    client: Callable[[], Invoker]
    answers_errors: bool

    def handle(self, arguments: tuple[Any, ...]) -> Any:
        """Handle one call; what gets out, result or error, is fit for the platform."""
        waits = is_http(arguments)
        try:
            with operation("cloud_run_handler", current=True, source="http" if waits else "event"):
                result = scrubbed(lambda: self._call(arguments))
        except CloisterError as error:
            if not (waits and self.answers_errors) or isinstance(error, HandlerError):
                raise
            status, document = answers.problem(error)
            return _response(status, answers.PROBLEM_TYPE, document)
        return _answer(result) if waits else None

    def _call(self, arguments: tuple[Any, ...]) -> Any:
        delivery = delivery_of(arguments)
        service = os.environ.get("K_SERVICE", "")
        invocation = None if delivery is None else ("gcp", service, self.handler.__name__, *delivery)
        return self.handler(
            *arguments, enclave=Enclave(self.function, client=self.client, invocation=invocation)
        )


def _answer(result: Any) -> Any:
    """A result as Flask takes it; a response, or a pair with a status, stays as it is."""
    result = answers.plain(result)
    if result is None:
        return "", int(HTTPStatus.NO_CONTENT), {"Cache-Control": "no-store"}
    if isinstance(result, str | bytes | dict | list | bool | int | float):
        return _response(HTTPStatus.OK, answers.content_type(result), result)
    return result


def _response(status: int, kind: str, body: Any) -> tuple[Any, int, dict[str, str]]:
    raw = body if isinstance(body, str | bytes) else json.dumps(body, ensure_ascii=False)
    return raw, int(status), {"Content-Type": kind, "Cache-Control": "no-store"}
