"""One sealed request in, one sealed reply out (PROTOCOL 6)."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from cloister.errors import (
    CloisterError,
    ConfigurationError,
    UnavailableError,
)
from cloister.protocol import OpenedRequest, open_request, request_kid, seal_reply
from cloister_host.http.metrics import Metrics
from cloister_host.identity.caller import Caller
from cloister_host.keysets import KeysetManager
from cloister_host.operations import Operation
from cloister_host.services import Services
from cloister_host.store import Tx
from cloister_host.store.idempotency import Done

__all__ = ["Act", "Dispatcher"]

log = structlog.get_logger(__name__)

IDEMPOTENCY_KEY_CHARS: Final = range(1, 129)


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """The members of a request body; the credential goes no further than `Dispatcher`."""

    op: str
    tenant: str
    credential: dict[str, str]
    payload: msgspec.Raw
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a staged operation commits with: its result is remembered in the transaction of its effect."""

    services: Services
    caller: Caller
    op: str
    idempotency_key: str

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """A transaction of the store."""
        with self.services.store.begin() as tx:
            yield tx

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        """Remember the result under the caller's idempotency key, in the effect's own transaction."""
        if self.idempotency_key:
            self.services.idempotency.finish(
                tx, self.caller, self.op, self.idempotency_key, msgspec.json.encode(result)
            )


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
        self._operations = operations
        self._keysets = keysets
        self._metrics = metrics
        self._clock = clock

    def handle(self, token: str) -> str:
        """Answer one sealed request; blocking, run it on a worker thread.

        Raises:
            CloisterError: The request did not open. Only such outcomes are answered in the clear.
        """
        # (1) Find the one key it is sealed to, and open it.
        jwe, kid = request_kid(token)
        key = self._keysets.request_key(kid)
        if key is None:
            raise ConfigurationError(
                "the request is sealed to a key this host does not hold", hint="attest again"
            )
        request = open_request(jwe, token=token, key=key, now=self._clock())
        # (2) Replay: the same ciphertext gets the same reply, another one under its `jti` an error.
        with self._services.store.begin() as tx:
            stored = self._services.replay.begin(tx, request.jti, request.digest, request.expires)
        if stored is not None:
            return stored
        # (3) From here on every outcome is sealed.
        started = time.perf_counter()
        reply = seal_reply(self._outcome(request), request=request)
        with self._services.store.begin() as tx:
            self._services.replay.finish(tx, request.jti, reply)
        self._metrics.handled(time.perf_counter() - started)
        return reply

    def _outcome(self, request: OpenedRequest) -> bytes:
        correlation_id = secrets.token_hex(8)
        try:
            return b'{"result":' + self._run(request, correlation_id) + b"}"
        except CloisterError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 (the last barrier: nothing of it may leave)
            # Not log.exception: a traceback quotes source and may quote values.
            log.error("request.failed", correlation_id=correlation_id, error=type(error).__name__)  # noqa: TRY400
            failure = UnavailableError("the host failed to carry this out", retryable=False)
        return msgspec.json.encode(
            {
                "error": {
                    "code": failure.code,
                    "message": str(failure.args[0]),
                    "hint": failure.hint,
                    "retryable": failure.retryable,
                    "correlation_id": failure.correlation_id or correlation_id,
                }
            }
        )

    def _run(self, request: OpenedRequest, correlation_id: str) -> bytes:
        # (4) Who is it? The credential is dropped here.
        body = _body(request.body)
        with self._services.store.begin() as tx:
            caller = self._services.identity.authenticate(
                tx, body.tenant, body.credential, correlation_id=correlation_id
            )
        # (5) What is asked for?
        operation = self._operations.get(body.op)
        if operation is None:
            raise ConfigurationError("there is no such operation", hint="see /openapi.json")
        if len(body.idempotency_key) not in IDEMPOTENCY_KEY_CHARS and operation.effect:
            raise ConfigurationError("this operation needs an idempotency_key of 1 to 128 characters")
        payload = operation.parse(body.payload)
        # (6) Once.
        return self._once(caller, body, operation, payload)

    def _once(self, caller: Caller, body: _Body, operation: Operation, payload: Any) -> bytes:
        services = self._services
        if not operation.effect:
            with services.store.begin() as tx:
                return msgspec.json.encode(operation.handler(caller, payload, tx))
        digest = hashlib.sha256(body.op.encode() + b"\x00" + bytes(body.payload)).digest()
        if not operation.staged:
            with services.store.begin() as tx:
                claim = services.idempotency.claim(tx, caller, body.op, body.idempotency_key, digest)
                if isinstance(claim, Done):
                    return claim.result
                encoded = msgspec.json.encode(operation.handler(caller, payload, tx))
                services.idempotency.finish(tx, caller, body.op, body.idempotency_key, encoded)
                return encoded
        with services.store.begin() as tx:
            claim = services.idempotency.claim(tx, caller, body.op, body.idempotency_key, digest)
        if isinstance(claim, Done):
            return claim.result
        act = Act(services=services, caller=caller, op=body.op, idempotency_key=body.idempotency_key)
        try:
            return msgspec.json.encode(operation.handler(caller, payload, act))
        except BaseException:
            with services.store.begin() as tx:
                services.idempotency.release(tx, caller, body.op, body.idempotency_key)
            raise


def _body(members: Mapping[str, Any]) -> _Body:
    try:
        op, tenant, credential = members["op"], members["tenant"], members["credential"]
        payload, key = members["payload"], members.get("idempotency_key", "")
    except KeyError as missing:
        raise ConfigurationError(f"the request has no member {missing.args[0]!r}") from None
    if not (isinstance(op, str) and isinstance(tenant, str) and isinstance(key, str)):
        raise ConfigurationError("the request's members op, tenant and idempotency_key are text")
    if not isinstance(credential, dict) or not all(isinstance(v, str) for v in credential.values()):
        raise ConfigurationError("the request's credential is malformed")
    return _Body(
        op=op,
        tenant=tenant,
        credential=credential,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        idempotency_key=key,
    )
