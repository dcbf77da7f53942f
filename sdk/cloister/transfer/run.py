"""The transfer itself: one call a value, noted before and after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, Protocol

from cloister.errors import (
    AttestationError,
    CloisterError,
    DeniedError,
    IdentityError,
    UnavailableError,
)
from cloister.faas import Invoker, idempotency_key
from cloister.reply import Reply
from cloister.transfer.items import Item, Items, Unusable
from cloister.transfer.state import Known, State

__all__ = ["Failure", "Report", "Sink", "Transfer"]

REMEMBERED_SECONDS: Final = 23 * 3600
"""How long a call is safely repeated under its key: the host remembers for 24 hours."""
ATTEMPTS: Final = 6
FIRST_PAUSE_SECONDS: Final = 0.5
MAX_FAILURES_SHOWN: Final = 100


class _OutputError(CloisterError):
    """A reply that could not be kept: what it replies to has been done."""

    code = "output"


_BEFORE: Final = ("before", "")
_ENDING: Final = (AttestationError, IdentityError, DeniedError, UnavailableError, _OutputError)
"""Errors that every other item would meet too."""


class Sink(Protocol):
    """Port: where replies go, for functions that do not deliver themselves."""

    def put(self, item: Item, key: str, reply: Reply) -> None:
        """Keep a reply; the same one again changes nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An item that was not transferred: where it stands, and why, in a word."""

    place: str
    code: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Report:
    """How a run ended.

    Attributes:
        done: Items transferred now.
        before: Items that an earlier run had transferred, or that stand in the source twice.
        failed: Items that were refused; another run tries them again.
        unknown: Items whose sending was cut off so long ago that a repetition could act twice.
        pending: Items in a dry run that would be sent.
        stopped: Why the run ended before its source did, as an error's code; None if it did not.
        failures: The first hundred of those that failed.
    """

    done: int = 0
    before: int = 0
    failed: int = 0
    unknown: int = 0
    pending: int = 0
    stopped: str | None = None
    failures: list[Failure] = field(default_factory=list)

    def fail(self, place: str, code: str, reason: str) -> None:
        """Count a failure."""
        if code == "unknown":
            self.unknown += 1
        else:
            self.failed += 1
        if len(self.failures) < MAX_FAILURES_SHOWN:
            self.failures.append(Failure(place=place, code=code, reason=reason))


class Transfer:
    """One transfer.

    Args:
        items: What is transferred.
        function: `name@alias`, or `name@<digest>`.
        client: Calls it, from several threads.
        concurrency: How many calls are under way at once.
        sink: Where replies go; by default nowhere.
        repeat_unknown: Also send what may have been done longer ago than the host remembers.
        progress: Told each time an item is finished with.
        clock: Epoch seconds.
        pause: Waits for some seconds between attempts.
    """

    def __init__(
        self,
        items: Items,
        function: str,
        client: Invoker,
        *,
        concurrency: int = 8,
        sink: Sink | None = None,
        repeat_unknown: bool = False,
        progress: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._items = items
        self._function = function
        self._client = client
        self._concurrency = concurrency
        self._sink = sink
        self._repeat_unknown = repeat_unknown
        self._progress = progress
        self._clock = clock
        self._pause = pause
        self._ending = threading.Event()

    def plan(self, state: State | None) -> Report:
        """What a run would do; nothing is sent or written."""
        report = Report()
        for _ in self._to_send(state, report):
            report.pending += 1
            self._progress()
        return report

    def run(self, state: State) -> Report:
        """Send what is not done."""
        report = Report()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="transfer") as pool:
            under_way: dict[Future[Reply], tuple[Item, str]] = {}
            try:
                for item, key in self._to_send(state, report):
                    if self._ending.is_set():
                        report.stopped = "interrupted"
                        break
                    # What is on disk before it is sent is known, after a crash, to need a repetition.
                    state.sent(key, item.digest, at=self._clock())
                    under_way[pool.submit(self._send, item, key)] = (item, key)
                    if len(under_way) >= self._concurrency:
                        self._settle(state, report, under_way)
                    if report.stopped is not None:
                        break
            finally:
                if report.stopped is not None:
                    self._ending.set()
                while under_way:
                    self._settle(state, report, under_way)
        return report

    def stop(self) -> None:
        """End a run when the calls under way are through; from any thread, or a signal's handler."""
        self._ending.set()

    def _to_send(self, state: State | None, report: Report) -> Iterator[tuple[Item, str]]:
        """The items that are not done, each once; what is not sent is counted."""
        seen: dict[str, str] = {}
        for item in self._items:
            if isinstance(item, Unusable):
                report.fail(item.place, "item", item.reason)
                self._progress()
                continue
            key = idempotency_key("transfer", self._function, item.id)
            known = None if state is None else state.get(key)
            verdict = self._verdict(item, known, seen.get(key))
            seen.setdefault(key, item.digest)
            if verdict is None:
                yield item, key
                continue
            if verdict is _BEFORE:
                report.before += 1
            else:
                report.fail(item.place, *verdict)
            self._progress()

    def _verdict(self, item: Item, known: Known | None, seen: str | None) -> tuple[str, str] | None:
        """Why an item is not sent; None if it is."""
        if seen is not None:
            return _BEFORE if seen == item.digest else ("changed", "another item has the same id")
        if known is None or known.status == "failed":
            return None
        if known.digest != item.digest:
            return ("changed", "it was sent before with another content")
        if known.status == "done":
            return _BEFORE
        if self._clock() - known.at > REMEMBERED_SECONDS and not self._repeat_unknown:
            return ("unknown", "it may have been done, longer ago than the host remembers")
        return None

    def _send(self, item: Item, key: str) -> Reply:
        """Call the function, again under the same key where that may help."""
        for attempt in range(ATTEMPTS):
            try:
                reply = self._client.invoke(
                    self._function, context=item.context, idempotency_key=key, **item.inputs
                )
            except UnavailableError as error:
                if attempt == ATTEMPTS - 1 or not error.retryable or self._ending.is_set():
                    raise
                self._pause(FIRST_PAUSE_SECONDS * 2**attempt)
            else:
                return self._kept(item, key, reply)
        raise AssertionError("unreachable")

    def _kept(self, item: Item, key: str, reply: Reply) -> Reply:
        if self._sink is not None:
            try:
                self._sink.put(item, key, reply)
            except CloisterError as error:
                raise _OutputError(str(error.args[0])) from None
        return reply

    def _settle(self, state: State, report: Report, under_way: dict[Future[Reply], tuple[Item, str]]) -> None:
        """Note what has ended; waits for at least one."""
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            item, key = under_way.pop(future)
            error = future.exception()
            if error is None:
                reply = future.result()
                state.done(key, item.digest, receipt=reply.receipt.id, delivery=reply.delivery_id)
                report.done += 1
            elif isinstance(error, _ENDING):
                # It may have had its effect, or had it: so it stays `sent`.
                report.stopped = report.stopped or error.code
                report.fail(item.place, error.code, str(error.args[0]))
            elif isinstance(error, CloisterError):
                state.failed(key, item.digest, code=error.code)
                report.fail(item.place, error.code, str(error.args[0]))
            else:
                raise error
            self._progress()
