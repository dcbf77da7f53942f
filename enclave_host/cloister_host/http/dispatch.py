"""One sealed request in, one sealed reply out (PROTOCOL 6)."""

from __future__ import annotations

import hashlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import structlog

from cloister import jose
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    LimitError,
    OpenError,
    QuorumNeededError,
    UnavailableError,
)
from cloister.protocol import OpenedRequest, StreamSealer, body_digest, open_request, request_kid, seal_reply
from cloister_host.audit.receipts import Receipts
from cloister_host.http.metrics import Metrics
from cloister_host.http.streams import Slices
from cloister_host.identity.caller import Caller
from cloister_host.keysets import KeysetManager
from cloister_host.operations import Operation
from cloister_host.services import Services
from cloister_host.store import ConflictError, Store, Tx
from cloister_host.store.canonical import canonical, digest
from cloister_host.store.idempotency import Done
from cloister_host.store.replay import ReplayError

__all__ = ["Act", "Dispatcher"]

log = structlog.get_logger(__name__)

CONFLICT_WAITS_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.08)
IDEMPOTENCY_KEY_CHARS: Final = range(1, 129)
MAX_PURPOSE_CHARS: Final = 128
REFUSALS: Final = (
    ConfigurationError,
    DeniedError,
    FunctionError,
    LimitError,
    OpenError,
    QuorumNeededError,
)
DIAGNOSES: Final = "audit."
"""What is still answered once the log was found to be tampered with."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """The members of a request body; the credential goes no further than `Dispatcher`."""

    op: str
    tenant: str
    credential: dict[str, str | list[str]]
    payload: msgspec.Raw
    idempotency_key: str = ""
    purpose: Annotated[str, msgspec.Meta(max_length=MAX_PURPOSE_CHARS)] = ""
    log_size: Annotated[int, msgspec.Meta(ge=0, lt=2**62)] = 0

    @property
    def digest(self) -> bytes:
        """What an idempotency key stands for."""
        return hashlib.sha256(self.op.encode() + b"\x00" + bytes(self.payload)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    """The request as a client certificate's key signs it."""

    kid: str
    jti: str
    body: _Body

    def digest(self) -> bytes:
        body = self.body
        return body_digest(
            bytes(body.payload),
            op=body.op,
            tenant=body.tenant,
            idempotency_key=body.idempotency_key,
            purpose=body.purpose,
        )


@dataclass(slots=True, kw_only=True)
class _Task:
    """What a request asks for, decoded; `caller` is who asks, once that was proven."""

    body: _Body
    operation: Operation
    payload: Any
    caller: Caller | None = None


class Act:
    """What a staged operation works with.

    Attributes:
        recorded: Whether the first transaction is committed.

        reply: The sealed reply, once there is one.

    Its first transaction is the one that recorded the request and claimed its effect. Its result is
    remembered, and replied with, in the transaction of its effect.
    """

    def __init__(
        self,
        *,
        request_digest: str,
        store: Store,
        first: ExitStack,
        tx: Tx,
        answer: Callable[[Tx, bytes], str],
    ) -> None:
        self.request_digest = request_digest
        self._store = store
        self._first: ExitStack | None = first
        self._tx = tx
        self._answer = answer
        self.reply = ""
        self.recorded = False

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """A transaction of the store."""
        first, self._first = self._first, None
        if first is None:
            with self._store.begin() as tx:
                yield tx
        else:
            with first:
                yield self._tx
            self.recorded = True

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        """Remember the result, in the effect's own transaction."""
        self.reply = self._answer(tx, msgspec.json.encode(result))

    def abandon(self) -> None:
        """Undo the first transaction if the operation failed before it began."""
        if self._first is not None:
            self._first.__exit__(*sys.exc_info())


class Dispatcher:
    """Opens requests, authenticates, runs the operation once, seals the outcome."""

    def __init__(
        self,
        *,
        services: Services,
        operations: Mapping[str, Operation],
        keysets: KeysetManager,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._services = services
        self._receipts = Receipts(keysets, clock)
        self._operations = operations
        self._keysets = keysets
        self._metrics = metrics
        self._clock = clock

    def handle(self, token: str) -> str | Iterator[bytes]:
        """Answer one sealed request, whole or in frames; blocking, run it on a worker thread.

        Raises:
            CloisterError: The request did not open. Only such outcomes are answered in the clear.
        """
        jwe, kid = request_kid(token)
        key = self._keysets.request_key(kid)
        if key is None:
            raise ConfigurationError(
                "the request is sealed to a key this host does not hold", hint="attest again"
            )
        request = open_request(jwe, token=token, key=key, now=self._clock())
        # From here on every outcome is sealed.
        started = time.perf_counter()
        reply = self._answer(request, secrets.token_hex(8))
        self._metrics.handled(time.perf_counter() - started)
        return reply

    def _answer(self, request: OpenedRequest, correlation_id: str) -> str | Iterator[bytes]:
        task: _Task | None = None
        try:
            task = self._task(request.plaintext)
            # What comes from outside is fetched before a transaction begins, never in one.
            self._services.identity.prepare(self._services.store, task.body.tenant, task.body.credential)
            if task.operation.streamed:
                return self._streamed(request, task, correlation_id)
            answer = self._staged if task.operation.staged else self._direct
            return self._persistently(partial(answer, request, task, correlation_id))
        except CloisterError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 (the last barrier: nothing of it may leave)
            # Not log.exception: a traceback quotes source and may quote values.
            log.error("request.failed", correlation_id=correlation_id, error=type(error).__name__)  # noqa: TRY400
            failure = UnavailableError("the host failed to carry this out", retryable=False)
        return self._refuse(request, task, failure, correlation_id)

    def _persistently(self, attempt: Callable[[], str]) -> str:
        """Try again where another transaction was faster: nothing was done, and nobody need know."""
        for wait_seconds in CONFLICT_WAITS_SECONDS:
            try:
                return attempt()
            except ConflictError as conflict:
                if conflict.acted:
                    raise
            time.sleep(secrets.randbelow(1000) / 1000 * wait_seconds)
        return attempt()

    def _task(self, plaintext: bytes) -> _Task:
        body = _body(plaintext)
        if not body.op.startswith(DIAGNOSES):
            self._services.log.require_intact()
        operation = self._operations.get(body.op)
        if operation is None:
            raise ConfigurationError("there is no such operation", hint="see /openapi.json")
        if operation.effect and len(body.idempotency_key) not in IDEMPOTENCY_KEY_CHARS:
            raise ConfigurationError("this operation needs an idempotency_key of 1 to 128 characters")
        return _Task(body=body, operation=operation, payload=operation.parse(body.payload))

    def _direct(self, request: OpenedRequest, task: _Task, correlation_id: str) -> str:
        """An operation on the store alone: record, effect and reply are one transaction."""
        services, body = self._services, task.body
        with services.store.begin() as tx:
            stored = services.replay.begin(tx, request.jti, request.digest, request.expires)
            if stored is not None:
                return stored
            caller = self._authenticate(tx, request, task, correlation_id)
            if not task.operation.effect:
                return self._reply(tx, request, body, self._result(tx, request, task, caller))
            claim = services.idempotency.claim(tx, caller, body.op, body.idempotency_key, body.digest)
            if isinstance(claim, Done):
                return self._reply(tx, request, body, claim.result)
            result = self._result(tx, request, task, caller)
            services.idempotency.finish(tx, caller, body.op, body.idempotency_key, result)
            return self._reply(tx, request, body, result)

    def _result(self, tx: Tx, request: OpenedRequest, task: _Task, caller: Caller) -> bytes:
        """Carry an operation out; its result as JSON, with the receipt in it where there is one."""
        operation = task.operation
        result = operation.handler(caller, task.payload, tx)
        encoded = msgspec.json.encode(result)
        if not operation.receipt:
            return encoded
        recorded = self._services.audit.take_last(caller.correlation_id)
        if recorded is None:
            raise UnavailableError("the act left no entry in the audit log", retryable=False)
        receipt = self._receipts.issue(
            tx,
            recorded,
            request=jose.b64url_encode(request.digest),
            disclosures={"result_digest": digest(canonical(result))} if operation.receipt == "result" else {},
        )
        members = msgspec.json.encode(receipt.to_json())
        return encoded[:-1] + (b"," if len(encoded) > len(b"{}") else b"") + b'"receipt":' + members + b"}"

    def _staged(self, request: OpenedRequest, task: _Task, correlation_id: str) -> str:
        """An operation with work outside the store, between two transactions."""
        services, body = self._services, task.body
        with ExitStack() as first:
            tx = first.enter_context(services.store.begin())
            stored = services.replay.begin(tx, request.jti, request.digest, request.expires)
            if stored is not None:
                return stored
            caller = self._authenticate(tx, request, task, correlation_id)
            claim = services.idempotency.claim(tx, caller, body.op, body.idempotency_key, body.digest)
            if isinstance(claim, Done):
                return self._reply(tx, request, body, claim.result)

            def answer(tx: Tx, result: bytes) -> str:
                services.idempotency.finish(tx, caller, body.op, body.idempotency_key, result)
                return self._reply(tx, request, body, result)

            act = Act(
                request_digest=jose.b64url_encode(request.digest),
                store=services.store,
                first=first.pop_all(),
                tx=tx,
                answer=answer,
            )
        try:
            task.operation.handler(caller, task.payload, act)
        except BaseException as error:
            act.abandon()
            if isinstance(error, ConflictError):
                error.acted = act.recorded
            with services.store.begin() as tx:
                services.idempotency.release(tx, caller, body.op, body.idempotency_key)
            raise
        return act.reply

    def _streamed(self, request: OpenedRequest, task: _Task, correlation_id: str) -> str | Iterator[bytes]:
        """An operation in slices. Its reply is not stored: whoever repeats it seals anew."""
        with self._services.store.begin() as tx:
            stored = self._services.replay.begin(tx, request.jti, request.digest, request.expires)
            if stored is not None:
                return stored
            caller = self._authenticate(tx, request, task, correlation_id)
        return self._frames(request, task, caller, correlation_id)

    def _frames(
        self, request: OpenedRequest, task: _Task, caller: Caller, correlation_id: str
    ) -> Iterator[bytes]:
        body, sealer = task.body, StreamSealer(request)
        slices = Slices(
            services=self._services,
            caller=caller,
            op=body.op,
            key=body.idempotency_key,
            digest=body.digest,
            act=partial(Act, request_digest=jose.b64url_encode(request.digest), store=self._services.store),
        )
        failure: CloisterError | None = None
        try:
            for result in task.operation.handler(caller, task.payload, slices):
                yield sealer.seal(b'{"result":' + result + b"}")
        except CloisterError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 (as in `_answer`)
            log.error("request.failed", correlation_id=correlation_id, error=type(error).__name__)  # noqa: TRY400
            failure = UnavailableError("the host failed to carry this out", retryable=False)
        with self._services.store.begin() as tx:
            end = b'{"result":{}'
            if failure is not None:
                end = self._error(tx, request, task, failure, correlation_id)
            log_part = self._services.log.for_reply(tx, body.log_size)
        yield sealer.seal(end + log_part + b"}", last=True)

    def _authenticate(self, tx: Tx, request: OpenedRequest, task: _Task, correlation_id: str) -> Caller:
        task.caller = self._services.identity.authenticate(
            tx,
            task.body.tenant,
            task.body.credential,
            correlation_id=correlation_id,
            proof=_Proof(kid=request.kid, jti=request.jti, body=task.body),
            purpose=task.body.purpose,
        )
        return task.caller

    def _reply(self, tx: Tx, request: OpenedRequest, body: _Body, result: bytes) -> str:
        log_part = self._services.log.for_reply(tx, body.log_size)
        reply = seal_reply(b'{"result":' + result + log_part + b"}", request=request)
        self._services.replay.finish(tx, request.jti, reply)
        return reply

    def _refuse(
        self, request: OpenedRequest, task: _Task | None, failure: CloisterError, correlation_id: str
    ) -> str:
        """Seal an error, and keep it for a repetition unless it is about this very request."""
        # Whoever could not say who they are must not be able to fill the store, or make it work.
        if task is None or task.caller is None or isinstance(failure, ReplayError):
            return seal_reply({"error": _members(failure, correlation_id)}, request=request)
        with self._services.store.begin() as tx:
            error = self._error(tx, request, task, failure, correlation_id)
            reply = seal_reply(error + self._log_part(tx, task.body) + b"}", request=request)
            self._services.replay.keep(tx, request.jti, request.digest, request.expires, reply)
        return reply

    def _error(
        self, tx: Tx, request: OpenedRequest, task: _Task, failure: CloisterError, correlation_id: str
    ) -> bytes:
        """The beginning of a reply to a known caller that says what failed."""
        members = _members(failure, correlation_id)
        if task.caller is not None and isinstance(failure, REFUSALS):
            members["receipt"] = self._refusal(tx, request, task.body.op, task.caller, failure)
        return b'{"error":' + msgspec.json.encode(members)

    def _log_part(self, tx: Tx, body: _Body) -> bytes:
        """What a refusal says of the log: nothing, where that is what it is refused for."""
        try:
            return self._services.log.for_reply(tx, body.log_size)
        except UnavailableError:
            return b""

    def _refusal(
        self, tx: Tx, request: OpenedRequest, op: str, caller: Caller, failure: CloisterError
    ) -> dict[str, Any]:
        """The receipt of a refusal; one that left no entry of its own gets it here."""
        audit, detail = self._services.audit, {"error": failure.code}
        recorded = audit.take_last(caller.correlation_id, outcomes=("refused", "failed", "unknown"))
        if recorded is None:
            recorded = audit.record(
                tx, caller, act=op, resource=f"operation/{op}", outcome="refused", detail=detail
            )
        receipt = self._receipts.issue(
            tx, recorded, request=jose.b64url_encode(request.digest), disclosures=detail
        )
        return receipt.to_json()


def _members(failure: CloisterError, correlation_id: str) -> dict[str, Any]:
    """What a reply says of a failure."""
    members: dict[str, Any] = {
        "code": failure.code,
        "message": str(failure.args[0]),
        "hint": failure.hint,
        "retryable": failure.retryable,
        "correlation_id": failure.correlation_id or correlation_id,
    }
    if isinstance(failure, QuorumNeededError):
        members["proposal_id"] = failure.proposal_id
    return members


def _body(plaintext: bytes) -> _Body:
    try:
        return msgspec.json.decode(plaintext, type=_Body)
    except (msgspec.MsgspecError, RecursionError):
        # msgspec's own message may quote a member.
        raise ConfigurationError(
            "the request's body cannot be read",
            hint="its members are op, tenant, credential, payload and idempotency_key",
        ) from None
