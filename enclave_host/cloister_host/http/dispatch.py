"""One sealed request in, one sealed reply out (PROTOCOL 6)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final

import msgspec
import structlog

from cloister import jose
from cloister.errors import CloisterError, ConfigurationError, IdentityError, UnavailableError
from cloister.protocol import OpenedRequest, StreamSealer, open_request, request_kid, seal_reply
from cloister_host.audit.receipts import Receipts
from cloister_host.fairness import aside
from cloister_host.http.act import Act
from cloister_host.http.lines import STRANGERS, Lines
from cloister_host.http.metrics import Metrics
from cloister_host.http.refusals import Refusals
from cloister_host.http.requests import Body, Opened, Proof, Task, read_body
from cloister_host.http.streams import Slices
from cloister_host.identity.caller import Caller
from cloister_host.keysets import KeysetManager
from cloister_host.operations import Operation
from cloister_host.services import Services
from cloister_host.store import ConflictError, Tx
from cloister_host.store.canonical import canonical, digest
from cloister_host.store.idempotency import Done

__all__ = ["Dispatcher", "UnheldKeyError"]

log = structlog.get_logger(__name__)

CONFLICT_WAITS_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.08)
IDEMPOTENCY_KEY_CHARS: Final = range(1, 129)
DIAGNOSES: Final = "audit."
"""What is still answered once the log was found to be tampered with."""


class UnheldKeyError(ConfigurationError):
    """A request is sealed to a key that is not held here."""


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
        self._refusals = Refusals(services, self._receipts)
        self._lines = Lines()
        self._operations = operations
        self._keysets = keysets
        self._metrics = metrics
        self._clock = clock

    def open(self, token: str, *, ask: bool = True) -> Opened:
        """Open one sealed request.

        Args:
            token: The request.
            ask: Ask the other hosts for its key, if it is not held here. That takes time.

        Raises:
            UnheldKeyError: It is sealed to a key that is not held here.
            CloisterError: It did not open. Only such outcomes are answered in the clear.
        """
        jwe, kid = request_kid(token)
        key = self._keysets.request_key(kid, ask=ask)
        if key is None:
            raise UnheldKeyError(
                "the request is sealed to a key this host does not hold", hint="attest again"
            )
        request = open_request(jwe, token=token, key=key, now=self._clock())
        # From here on every outcome is sealed.
        body: Body | CloisterError
        try:
            body = read_body(request.plaintext)
            line = self._lines.of(body.tenant, body.credential)
        except CloisterError as error:
            body, line = error, STRANGERS
        return Opened(
            request=request,
            body=body,
            line=line,
            correlation_id=secrets.token_hex(8),
            opened_at=time.perf_counter(),
        )

    def answer(self, opened: Opened) -> str | Iterator[bytes]:
        """Answer a request, whole or in frames; blocking, run it on a worker thread."""
        reply = self._answer(opened)
        self._metrics.handled(time.perf_counter() - opened.opened_at)
        return reply

    def turn_away(self, opened: Opened, failure: CloisterError) -> str:
        """Seal why a request is not worked on. Nothing of it is recorded: it may be sent again."""
        return self._refusals.reply(opened.request, None, failure, opened.correlation_id)

    def _answer(self, opened: Opened) -> str | Iterator[bytes]:
        task: Task | None = None
        request, correlation_id = opened.request, opened.correlation_id
        try:
            task = self._task(opened.body)
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
        return self._refusals.reply(request, task, failure, correlation_id)

    def _persistently(self, attempt: Callable[[], str]) -> str:
        """Try again where another transaction was faster: nothing was done, and nobody need know."""
        for wait_seconds in CONFLICT_WAITS_SECONDS:
            try:
                return attempt()
            except ConflictError as conflict:
                if conflict.acted:
                    raise
            with aside():
                time.sleep(secrets.randbelow(1000) / 1000 * wait_seconds)
        return attempt()

    def _task(self, body: Body | CloisterError) -> Task:
        if isinstance(body, CloisterError):
            raise body
        if not body.op.startswith(DIAGNOSES):
            self._services.log.require_intact()
        operation = self._operations.get(body.op)
        if operation is None:
            raise ConfigurationError("there is no such operation", hint="see /openapi.json")
        if operation.effect and len(body.idempotency_key) not in IDEMPOTENCY_KEY_CHARS:
            raise ConfigurationError("this operation needs an idempotency_key of 1 to 128 characters")
        return Task(body=body, operation=operation, payload=operation.parse(body.payload))

    def _direct(self, request: OpenedRequest, task: Task, correlation_id: str) -> str:
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

    def _result(self, tx: Tx, request: OpenedRequest, task: Task, caller: Caller) -> bytes:
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

    def _staged(self, request: OpenedRequest, task: Task, correlation_id: str) -> str:
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
            task.length = act.length
            act.abandon()
            if isinstance(error, ConflictError):
                error.acted = act.recorded
            with services.store.begin() as tx:
                services.idempotency.release(tx, caller, body.op, body.idempotency_key)
            raise
        return act.reply

    def _streamed(self, request: OpenedRequest, task: Task, correlation_id: str) -> str | Iterator[bytes]:
        """An operation in slices. Its reply is not stored: whoever repeats it seals anew."""
        with self._services.store.begin() as tx:
            stored = self._services.replay.begin(tx, request.jti, request.digest, request.expires)
            if stored is not None:
                return stored
            caller = self._authenticate(tx, request, task, correlation_id)
        return self._frames(request, task, caller, correlation_id)

    def _frames(
        self, request: OpenedRequest, task: Task, caller: Caller, correlation_id: str
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
                end = self._refusals.error(tx, request, task, failure, correlation_id)
            log_part = self._services.log.for_reply(tx, body.log_size)
        yield sealer.seal(end + log_part + b"}", last=True)

    def _authenticate(self, tx: Tx, request: OpenedRequest, task: Task, correlation_id: str) -> Caller:
        body = task.body
        try:
            task.caller = self._services.identity.authenticate(
                tx,
                body.tenant,
                body.credential,
                correlation_id=correlation_id,
                proof=Proof(kid=request.kid, jti=request.jti, body=body),
                purpose=body.purpose,
            )
        except IdentityError:
            self._lines.refused(body.tenant, body.credential)
            raise
        self._lines.proven(body.tenant, body.credential)
        return task.caller

    def _reply(self, tx: Tx, request: OpenedRequest, body: Body, result: bytes) -> str:
        log_part = self._services.log.for_reply(tx, body.log_size)
        reply = seal_reply(b'{"result":' + result + log_part + b"}", request=request)
        self._services.replay.finish(tx, request.jti, reply)
        return reply
