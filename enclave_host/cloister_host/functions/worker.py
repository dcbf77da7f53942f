"""A worker process as the host sees it: one call at a time, within a deadline, in its tenant's turn."""

from __future__ import annotations

import builtins
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cloister.errors import CloisterError, FunctionError, LimitError, UnavailableError
from cloister.function.manifest import Manifest
from cloister_host.functions.frames import (
    MAX_DETAIL_CHARS,
    Answer,
    Ask,
    Call,
    Channel,
    ChannelError,
    DeadlineError,
    Failed,
    FromWorker,
    Load,
    Loaded,
    Logged,
    Progressed,
    Refusal,
    Returned,
)
from cloister_host.functions.sandbox import Process
from cloister_host.functions.turns import Turn, Turns
from cloister_host.functions.watch import Watch

__all__ = ["Door", "Worker"]

MAX_ASKS: Final = 256
MAX_REMARKS: Final = 10_000
LOAD_SECONDS: Final = 20.0
_NUMBER_BITS: Final = 62

# The names a caller may see. Any other class name could be made up to carry data out.
_BUILTIN_ERRORS: Final = frozenset(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
)
_OWN_ERRORS: Final = frozenset(
    {"ConfigurationError", "DeniedError", "FunctionError", "LimitError", "UnavailableError"}
)
_INPUT_ERROR: Final = "ValidationError"


class Door(Protocol):
    """Port: the way out for one invocation."""

    def ask(self, request: Ask, *, deadline: float) -> Answer:
        """Ask a declared origin.

        Raises:
            CloisterError: It was not asked, or gave no usable answer; the function sees code and text.
        """
        ...


class Worker:
    """A loaded function in a process of its own.

    Args:
        process: Just started.
        manifest: What the bundle says.
        tenant: Whose function it is.
        turns: Lets it compute when it is that tenant's turn; at no other time.
        check: Whether all of its code is looked at first, and has to declare the same as the manifest, as
            before a deployment; what was found is in `notes`.

    Raises:
        FunctionError: The code does not load, or declares something else.
        LimitError: Loading takes too long.
    """

    def __init__(
        self, process: Process, manifest: Manifest, *, tenant: str, turns: Turns, check: bool = False
    ) -> None:
        self._process = process
        self._tenant = tenant
        self._turns = turns
        self._manifest = manifest
        self._channel = Channel(process.connection, FromWorker)
        self._names = _BUILTIN_ERRORS | _OWN_ERRORS | frozenset(manifest.errors)
        self.calls = 0
        self.spent = False
        self.notes: list[str] = []
        try:
            process.pause()
            with turns.taken(tenant, process):
                self._load(check=check)
        except BaseException:
            self.kill()
            raise

    def call(self, inputs: Mapping[str, Any], door: Door, watch: Watch | None = None) -> Any:
        """Run the function once and return what it says, unchecked.

        Raises:
            FunctionError: It raised, died, was cancelled or spoke out of turn; the worker may be spent.
            LimitError: It took too long or too much memory; the worker is spent.
            UnavailableError: It failed because a declared origin did not answer.
        """
        self.calls += 1
        watch = watch or Watch()
        # Until it has kept to the protocol to the end.
        self.spent = True
        deadline = time.monotonic() + self._manifest.limits.timeout_seconds
        try:
            with watch.running(self._channel.hang_up):
                # Before its turn, so that it wakes once, with something to do.
                number = 1 + secrets.randbits(_NUMBER_BITS)
                rest = self._channel.offer(Call(number, dict(inputs), watch.debug))
                with self._turns.taken(self._tenant, self._process) as turn:
                    self._channel.complete(rest, deadline=deadline)
                    return self._converse(number, _Aside(door, self._turns, turn), deadline, watch)
        except DeadlineError:
            self.spent = True
            raise LimitError(
                "the function took too long", hint="raise timeout_seconds in its Limits"
            ) from None
        except ChannelError:
            self.spent = True
            if watch.cancelled:
                raise FunctionError("the function was cancelled") from None
            raise FunctionError(
                "the function's process ended", hint="it crashed or ran out of memory"
            ) from None

    @property
    def fit(self) -> bool:
        """Whether it can take a call: alive, and silent since its last answer."""
        return not self.spent and self._channel.is_quiet()

    def retire(self) -> None:
        """Use it for nothing more."""
        self.spent = True

    def kill(self) -> None:
        """End the process."""
        self.spent = True
        self._process.kill()

    def _load(self, *, check: bool) -> None:
        deadline = time.monotonic() + LOAD_SECONDS
        try:
            manifest = self._manifest
            load = Load(
                manifest.entrypoint, dict(manifest.settings), check=check, logs=manifest.logs is not None
            )
            self._channel.send(load, deadline=deadline)
            frame = self._channel.receive(deadline=deadline)
        except DeadlineError:
            raise LimitError("the function took too long to load", hint="do less at import") from None
        except ChannelError:
            raise FunctionError("the function's process ended while it was loaded") from None
        if isinstance(frame, Failed):
            raise FunctionError(
                f"the function cannot be imported: {self._name(frame)}",
                hint="is everything it imports in its folder?",
            )
        # A digest stands for code and manifest: once they have been compared, they stay the same.
        expected = manifest.canonical() if check else b""
        if not isinstance(frame, Loaded) or not hmac.compare_digest(frame.manifest, expected):
            raise FunctionError(
                "the code does not declare what the manifest says",
                hint="build the bundle again from these sources",
            )
        self.notes = [note[:MAX_DETAIL_CHARS] for note in frame.notes]

    def _converse(self, number: int, door: Door, deadline: float, watch: Watch) -> Any:
        unavailable, asks, remarks = False, 0, 0
        while asks < MAX_ASKS and remarks < MAX_REMARKS:
            frame = self._channel.receive(deadline=deadline)
            if isinstance(frame, Logged):
                remarks += 1
                watch.logged(frame.text)
            elif isinstance(frame, Progressed):
                remarks += 1
                if self._manifest.progress:
                    watch.progressed(frame.percent)
            elif isinstance(frame, Loaded):
                break
            elif isinstance(frame, Ask):
                asks += 1
                try:
                    answer: Answer | Refusal = door.ask(frame, deadline=deadline)
                except CloisterError as error:
                    unavailable |= isinstance(error, UnavailableError)
                    answer = Refusal(error.code, str(error.args[0]), error.hint)
                self._channel.send(answer, deadline=deadline)
            elif frame.call != number or not self._channel.is_quiet():
                # Written for another call, or before this one; or there is more than one answer.
                break
            elif isinstance(frame, Returned):
                self.spent = False
                return frame.value
            else:
                self.spent = frame.error == MemoryError.__name__
                raise self._failure(frame, unavailable=unavailable, debug=watch.debug)
        raise FunctionError(
            "the function's process does not keep to the protocol or asks origins without end"
        )

    def _failure(self, frame: Failed, *, unavailable: bool, debug: bool) -> CloisterError:
        # The host knows by itself that an origin failed; the function only passes that on.
        if unavailable and frame.error == UnavailableError.__name__:
            return UnavailableError("an origin that the function needs did not answer", hint="retry later")
        if frame.error == MemoryError.__name__:
            return LimitError("the function used too much memory", hint="raise memory_mib in its Limits")
        if frame.error == _INPUT_ERROR:
            return FunctionError("an input is not of its declared type", hint="see the function's manifest")
        if debug and frame.detail:
            return FunctionError(
                f"the function raised {frame.detail[:MAX_DETAIL_CHARS]}",
                hint="debugging is on: function.debug",
            )
        return FunctionError(
            f"the function raised {self._name(frame)}", hint="test it with the same kind of input"
        )

    def _name(self, frame: Failed) -> str:
        return frame.error if frame.error in self._names else "Exception"


@dataclass(frozen=True, slots=True)
class _Aside:
    """A door at which the function's process is stopped while it waits for the answer."""

    door: Door
    turns: Turns
    turn: Turn

    def ask(self, request: Ask, *, deadline: float) -> Answer:
        with self.turns.given_up(self.turn):
            return self.door.ask(request, deadline=deadline)
