"""Spans and metrics by OpenTelemetry, where the application uses it, and nothing where it does not.

Nothing is imported here: who has set OpenTelemetry up has loaded its API, and without a set-up provider
its spans would go nowhere. What is recorded is what was done, how it ended and how long it took; never a
payload, a credential, a tenant, a context, an idempotency key or the message of an error.
"""

from __future__ import annotations

import re
import sys
import time
from types import TracebackType
from typing import Any, Final, Self

from cloister.errors import CloisterError

__all__ = ["Operation", "operation"]

SCOPE: Final = "cloister"
DURATION: Final = "cloister.operation.duration"
OK: Final = "ok"
_is_name: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}").fullmatch


def operation(name: str, *, current: bool = False, **attributes: int | str) -> Operation:
    """Record what is done in a `with` block, as a span and as one measurement.

    Args:
        name: What is done; a constant of ours, or the name of one of the host's operations.
        current: Make spans begun inside children of this one; for blocks that are left in the frame that
            entered them, and not for generators, which another task may close.
        attributes: Of the span, as `cloister.<name>`: counts, and constants of ours.
    """
    return Operation(name if _is_name(name) else "other", attributes, current=current)


class Operation:
    """One thing that is done, from entering the block to leaving it."""

    __slots__ = ("_attributes", "_began", "_current", "_name", "_span", "_token", "_told")

    def __init__(self, name: str, attributes: dict[str, int | str], *, current: bool) -> None:
        self._name = name
        self._attributes = attributes
        self._current = current
        self._span: Any = None
        self._token: Any = None
        self._told = OK
        self._began = 0.0

    def failed(self, code: str) -> None:
        """Say that it ended with an error which does not leave the block as an exception."""
        self._told = code

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is not None:
            attributes = {f"{SCOPE}.{name}": value for name, value in self._attributes.items()}
            self._span = trace.get_tracer(SCOPE).start_span(
                f"{SCOPE} {self._name}",
                kind=trace.SpanKind.INTERNAL if self._current else trace.SpanKind.CLIENT,
                attributes={f"{SCOPE}.operation": self._name, **attributes},
                record_exception=False,  # its message and its source lines may be anybody's
                set_status_on_exception=False,
            )
            if self._current:
                context: Any = sys.modules["opentelemetry.context"]
                self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._told = error.code if isinstance(error, CloisterError) else kind.__name__
        if self._token is not None:
            sys.modules["opentelemetry.context"].detach(self._token)
        if self._span is not None:
            self._end_span()
        metrics: Any = sys.modules.get("opentelemetry.metrics")
        if metrics is not None:
            labels = {f"{SCOPE}.operation": self._name, f"{SCOPE}.outcome": self._told}
            _durations(metrics).record(time.monotonic() - self._began, labels)

    def _end_span(self) -> None:
        self._span.set_attribute(f"{SCOPE}.outcome", self._told)
        if self._told != OK:
            status: Any = sys.modules["opentelemetry.trace"]
            self._span.set_attribute("error.type", self._told)
            self._span.set_status(status.Status(status.StatusCode.ERROR))
        self._span.end()


_instrument: tuple[Any, Any] | None = None
"""Of a provider: it warns of an instrument that is made twice."""


def _durations(metrics: Any) -> Any:
    global _instrument  # noqa: PLW0603 (providers belong to the process too)
    provider, known = metrics.get_meter_provider(), _instrument
    if known is None or known[0] is not provider:
        meter = provider.get_meter(SCOPE)
        histogram = meter.create_histogram(DURATION, unit="s", description="How long operations took")
        known = _instrument = provider, histogram
    return known[1]
