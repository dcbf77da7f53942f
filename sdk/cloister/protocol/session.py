"""The client's side of a call, without I/O: what to do next, and when to try again (PROTOCOL 6).

`exchange` is a generator of steps. Whoever drives it does what the step says (attest the host, send
bytes, wait) and sends the outcome back in; `Client` drives it with threads, `AsyncClient` with
asyncio, and tests with a list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from cloister.errors import CloisterError, OpenError, UnavailableError, error_from_code
from cloister.protocol.attest import AttestationResult
from cloister.protocol.exchange import (
    RequestBinding,
    SealedRequest,
    bind_request,
    open_reply,
    seal_request,
)
from cloister.protocol.keyset import Keyset
from cloister.protocol.stream import MAGIC, StreamOpener

__all__ = [
    "Attest",
    "Authenticate",
    "Exchange",
    "HeadRules",
    "Response",
    "Send",
    "Wait",
    "Work",
    "attested",
    "exchange",
    "receive",
]

ATTEMPTS: Final = 4
FIRST_WAIT_SECONDS: Final = 0.25
MAX_WAIT_SECONDS: Final = 5.0
KEY_MARGIN_SECONDS: Final = 30
HTTP_OK: Final = 200
MAX_PLAIN_BYTES: Final = 1 << 20
HTTP_TOO_LARGE: Final = 413


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """Step: give me an appraised keyset, and not the one named here; answer `None` if no host answered.

    With `fresh` the host is challenged even if it is known.
    """

    reject: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate:
    """Step: give me a credential for this deployment and this request (`Identity.credential`)."""

    deployment: str
    request: RequestBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Step: POST this to `/v1/sealed` as `application/jose`; answer `None` if no response came.

    Where there is a `sink`, it is given what an answer with status 200 brings as it arrives, and the
    response's body is empty then.
    """

    body: bytes
    sink: Callable[[bytes], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Step: let this much time pass."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response; in itself only a hint, since anyone on the way may have written it."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Work:
    """Step: do this, which waits for files or takes the processor for long, and give its result."""

    do: Callable[[], Any]


Step = Attest | Authenticate | Send | Wait | Work
Exchange = Generator[Step, Any, Mapping[str, Any]]


class HeadRules(Protocol):
    """What every reply's tree head must satisfy; `cloister.receipts.HeadKeeper` is one."""

    def kept(self, keyset: Keyset) -> Any:
        """The last head of this deployment, with its `size`, or None."""
        ...

    def accept(self, reply: Mapping[str, Any], *, keyset: Keyset, base: Any) -> None:
        """Check a reply's head against the one kept before the request, or raise `LogError`."""
        ...


def exchange(
    body: Mapping[str, Any],
    *,
    clock: Callable[[], float],
    jitter: Callable[[], float],
    heads: HeadRules | None = None,
) -> Exchange:
    """Send one operation and return its result.

    Args:
        body: The request body of PROTOCOL 6, without a credential. Its `idempotency_key` stays the
            same over every retry, so that an operation with an effect has it once.
        clock: Epoch seconds.
        jitter: Uniform in [0, 1).
        heads: What the tree heads of the replies must satisfy.

    Raises:
        CloisterError: What the host answered under seal, or `UnavailableError` if no such answer came.
        LogError: The host's log is not the one that was seen before.
    """
    host = yield from attested(Attest(), jitter=jitter)
    reattested = False
    request: SealedRequest | None = None
    check: Callable[[Mapping[str, Any]], None]
    for attempt in itertools.count(1):
        if request is None or request.expires <= clock():
            host, request, check = yield from _seal(body, host, heads, clock, jitter)
        outcome = _outcome((yield Send(body=request.token.encode())), request, check)
        if isinstance(outcome, dict):
            return outcome
        if isinstance(outcome, CloisterError):
            # Under seal: the host has spoken. Only what it calls retryable is worth another request.
            if not outcome.retryable or attempt >= ATTEMPTS:
                raise outcome
            request = None
        elif outcome.may_be_stale and not reattested:
            # In the clear: nothing was proven, so nothing is believed. A reason to attest again, once.
            host = yield from attested(Attest(reject=host.keyset.digest), jitter=jitter)
            reattested, request = True, None
            continue
        elif outcome.too_large or attempt >= ATTEMPTS:
            raise outcome.as_error()
        # Otherwise no answer came: the same ciphertext again is safe, the host answers it from its store.
        yield _wait(attempt, jitter)
    raise AssertionError  # pragma: no cover (the loop only ends by return or raise)


def receive(
    body: Mapping[str, Any],
    *,
    take: Callable[[Mapping[str, Any]], object],
    clock: Callable[[], float],
    jitter: Callable[[], float],
    heads: HeadRules | None = None,
) -> Generator[Step, Any, None]:
    """Send one operation whose results come as a stream, and take each as it arrives.

    Nothing is sent twice: what was taken cannot be taken back.

    Args:
        body: As in `exchange`.
        take: Given one result after the other, each authentic; the stream is whole once this returns.
        clock: As in `exchange`.
        jitter: As in `exchange`.
        heads: As in `exchange`.

    Raises:
        CloisterError: What ended the stream, or `UnavailableError` if it was cut off.
        LogError: The host's log is not the one that was seen before.
    """
    host = yield from attested(Attest(), jitter=jitter)
    _, request, check = yield from _seal(body, host, heads, clock, jitter)
    receiver = _Receiver(request, take)
    response: Response | None = yield Send(body=request.token.encode(), sink=receiver.feed)
    if response is None:
        raise _Hint(0).as_error()
    if response.status != HTTP_OK:
        raise _Hint(response.status).as_error()
    last = receiver.finish()
    check(last)
    error = _error(last)
    if error is not None:
        raise error


class _Receiver:
    """Opens the frames of a stream as they arrive, and holds the last one back: it tells how it ended."""

    def __init__(self, request: SealedRequest, take: Callable[[Mapping[str, Any]], object]) -> None:
        self._request = request
        self._take = take
        self._opener: StreamOpener | None = None
        self._begun = bytearray()
        self._held: Mapping[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        if self._opener is None:
            self._begun += data
            if not self._begun.startswith(MAGIC):
                # A refusal is no stream; or it is something else, which `finish` finds out.
                if len(self._begun) > MAX_PLAIN_BYTES:
                    raise OpenError("this is not a streamed reply")
                return
            self._opener, data = StreamOpener(self._request), bytes(self._begun)
        for frame in self._opener.feed(data):
            if self._held is not None:
                self._pass_on(self._held)
            self._held = frame

    def finish(self) -> Mapping[str, Any]:
        """The last frame."""
        if self._opener is None:
            return open_reply(self._begun.decode("ascii", "replace"), request=self._request)
        self._opener.finish()
        assert self._held is not None, "a stream that ended has a last frame"
        return self._held

    def _pass_on(self, frame: Mapping[str, Any]) -> None:
        result = frame.get("result")
        if not isinstance(result, dict):
            raise OpenError("this is not a streamed reply")
        self._take(result)


def attested(step: Attest, *, jitter: Callable[[], float]) -> Generator[Step, Any, AttestationResult]:
    """Attest the host, waiting for one that is just starting.

    Raises:
        UnavailableError: No host answered.
    """
    for attempt in range(1, ATTEMPTS + 1):
        host: AttestationResult | None = yield step
        if host is not None:
            return host
        if attempt < ATTEMPTS:
            yield _wait(attempt, jitter)
    raise UnavailableError("the host cannot be reached", hint="check CLOISTER_URL and the host's /readyz")


def _wait(attempt: int, jitter: Callable[[], float]) -> Wait:
    return Wait(seconds=min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt) * (0.5 + jitter() / 2))


def _seal(
    body: Mapping[str, Any],
    host: AttestationResult,
    heads: HeadRules | None,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Generator[Step, Any, tuple[AttestationResult, SealedRequest, Callable[[Mapping[str, Any]], None]]]:
    """Seal to the host's newest request key, attesting again if the keyset has run out.

    Gives the request with what its reply must satisfy beyond opening.
    """
    key = host.keyset.request_key(clock(), margin_seconds=KEY_MARGIN_SECONDS)
    if key is None:
        host = yield from attested(Attest(reject=host.keyset.digest), jitter=jitter)
        key = host.keyset.request_key(clock())
    if key is None:
        raise UnavailableError("the host offers no request key for this time", hint="check both clocks")
    base = None if heads is None else heads.kept(host.keyset)
    if heads is not None:
        body = {**body, "log_size": base.size if base else 0}
    binding = bind_request(body, key=key)
    credential = yield Authenticate(deployment=host.keyset.deployment, request=binding)
    sealed = seal_request({**body, "credential": credential}, key=key, now=clock(), binding=binding)
    if heads is None:
        return host, sealed, lambda _reply: None
    return host, sealed, partial(heads.accept, keyset=host.keyset, base=base)


@dataclass(frozen=True, slots=True)
class _Hint:
    """A response in the clear, or none at all (status 0)."""

    status: int

    @property
    def too_large(self) -> bool:
        return self.status == HTTP_TOO_LARGE

    @property
    def may_be_stale(self) -> bool:
        return 400 <= self.status < 500 and not self.too_large  # noqa: PLR2004 (client errors)

    def as_error(self) -> UnavailableError:
        if self.too_large:
            return UnavailableError(
                "something on the way to the host refuses a request of this size",
                hint="send fewer values in one call",
                retryable=False,
            )
        return UnavailableError("the host did not answer", hint="check CLOISTER_URL and the host's /readyz")


def _outcome(
    response: Response | None, request: SealedRequest, check: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any] | CloisterError | _Hint:
    if response is None:
        return _Hint(0)
    if response.status != HTTP_OK:
        return _Hint(response.status)
    try:
        if response.body.startswith(MAGIC):
            return _streamed(response.body, request, check)
        reply = open_reply(response.body.decode("ascii"), request=request)
    except (OpenError, UnicodeDecodeError):
        return _Hint(502)
    check(reply)
    error = _error(reply)
    if error is not None:
        return error
    result = reply.get("result")
    return result if isinstance(result, dict) else _Hint(502)


def _streamed(
    body: bytes, request: SealedRequest, check: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any] | CloisterError | _Hint:
    """The frames of a stream that came whole, and how it ended."""
    opener = StreamOpener(request)
    frames = list(opener.feed(body))
    opener.finish()
    last = frames.pop()
    check(last)
    error = _error(last)
    if error is not None and error.retryable:
        # What it has done it gives again, whoever does not ask for more.
        return error
    results = [frame.get("result") for frame in frames]
    return {"frames": results, "error": error} if all(isinstance(r, dict) for r in results) else _Hint(502)


def _error(reply: Mapping[str, Any]) -> CloisterError | None:
    error = reply.get("error")
    if not isinstance(error, dict):
        return None
    failure = error_from_code(
        str(error.get("code")),
        str(error.get("message")),
        hint=str(error.get("hint", "")),
        correlation_id=str(error.get("correlation_id", "")),
        retryable=error.get("retryable") is True,
        proposal_id=str(error.get("proposal_id", "")),
    )
    if isinstance(error.get("receipt"), dict):
        failure.receipt = error["receipt"]
    return failure
