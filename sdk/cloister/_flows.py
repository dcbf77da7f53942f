"""What a client does, written once without I/O; `Client` and `AsyncClient` are two ways to drive it.

Every method is a generator of the steps of `cloister.protocol.session`; its return value is the
method's result.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, TypeVar

from cloister import jose
from cloister._host import KnownHost
from cloister.attestation import AppraisalPolicy
from cloister.envelope import DataKey, Dek, DekCache, OpenCache, Sealed, Value, authored
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    EvidenceError,
    LimitError,
    OpenError,
)
from cloister.identity import Identity
from cloister.objects import ObjectHeader, ObjectKey
from cloister.protocol.attest import AttestationResult
from cloister.protocol.public_key import PublicKey, verify_public_key
from cloister.protocol.session import Attest, Authenticate, Step, Wait, attested, exchange
from cloister.receipts import HeadKeeper, TreeHead
from cloister.reply import BatchReply, Job, Reply, Results
from cloister.secret import Secret
from cloister.telemetry import operation

__all__ = ["Context", "Flow", "Flows", "Rows", "bound_context", "in_parts"]

T = TypeVar("T")
Flow = Generator[Step, Any, T]
Context = Mapping[str, str]
Rows = Sequence[Mapping[str, Any]]

NONCE_BYTES: Final = 32
HTTP_OK: Final = 200
HTTP_SERVER_ERROR: Final = 500
OPEN_CHUNK: Final = 10_000
FIRST_POLL_SECONDS: Final = 0.1
LONGEST_POLL_SECONDS: Final = 5.0


class Flows:
    """The operations of one tenant's client."""

    def __init__(
        self,
        *,
        tenant: str,
        identity: Identity,
        policy: AppraisalPolicy,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        heads: HeadKeeper,
    ) -> None:
        self._heads = heads
        self._tenant = tenant
        self._identity = identity
        self.host = KnownHost(policy, clock=clock, jitter=jitter)
        self._clock = clock
        self._jitter = jitter
        self._deks = DekCache()
        self._opened = OpenCache()

    @property
    def tenant(self) -> str:
        """Whose client it is."""
        return self._tenant

    # --- attestation: the driver holds the lock, so that one flight serves all who wait ---

    def attest(self) -> Flow[AttestationResult]:
        host = yield from attested(Attest(fresh=True), jitter=self._jitter)
        return replace(host, not_checked=(*host.not_checked, *self._heads.not_checked))

    def forget(self) -> None:
        """Drop everything drawn or learned so far, as after a snapshot was restored."""
        self.host.forget()
        self._deks.clear()
        self._opened.clear()

    def credential(self, step: Authenticate) -> Mapping[str, Any]:
        """The caller's credential for one request; may wait for whoever issues it."""
        return self._identity.credential(deployment=step.deployment, request=step.request)

    def tree_head(self) -> TreeHead | None:
        """The last head of the audit log that this client accepted, or kept from an earlier run."""
        keyset = self.host.keyset
        return None if keyset is None else self._heads.kept(keyset)

    # --- any operation ---

    def call(
        self,
        op: str,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Flow[Mapping[str, Any]]:
        body: dict[str, Any] = {
            "op": op,
            "tenant": self._tenant,
            "idempotency_key": idempotency_key or secrets.token_urlsafe(16),
            "payload": payload,
        }
        if purpose:
            body["purpose"] = purpose
        with operation(op):
            return (yield from exchange(body, clock=self._clock, jitter=self._jitter, heads=self._heads))

    # --- values ---

    def seal_many(
        self,
        values: Sequence[Value],
        *,
        key: str,
        contexts: Sequence[Context | None] | None,
        key_context: Context | None,
        signer: Mapping[str, Any] | None = None,
    ) -> Flow[list[Sealed]]:
        bound = [bound_context(context, key_context) for context in _one_each(contexts, values)]
        if signer is not None:
            values = [
                authored(value, signer=signer, tenant=self._tenant, key=key, context=context)
                for value, context in zip(values, bound, strict=True)
            ]
        messages, size_bytes = len(values), sum(map(_size, values))
        dek = yield from self._lease(key, key_context, messages=messages, size_bytes=size_bytes)
        return [dek.seal(value, context) for value, context in zip(values, bound, strict=True)]

    def _lease(self, key: str, key_context: Context | None, *, messages: int, size_bytes: int) -> Flow[Dek]:
        dek = self._deks.lease(key, key_context, messages=messages, size_bytes=size_bytes, now=self._clock())
        if dek is None:
            dek = yield from self._fresh_dek(key, key_context)
            if not dek.lease(messages=messages, size_bytes=size_bytes, now=self._clock()):
                raise LimitError("the batch is larger than one data key may seal", hint="seal it in parts")
        return dek

    def _fresh_dek(self, key: str, key_context: Context | None) -> Flow[Dek]:
        payload: dict[str, Any] = {"key": key}
        if key_context is not None:
            payload["key_context"] = dict(key_context)
        result = yield from self.call("key.data_key", payload)
        data_key = DataKey(
            kid=result["kid"],
            dek=Secret(jose.b64url_decode(result["dek"])),
            encrypted_key=jose.b64url_decode(result["encrypted_key"]),
            max_messages=result["max_messages"],
            max_bytes=result["max_bytes"],
            max_age_seconds=result["max_age_seconds"],
        )
        return self._deks.add(key, key_context, data_key, now=self._clock())

    def open_many(
        self, values: Sequence[str], *, contexts: Sequence[Context | None] | None, purpose: str | None
    ) -> Flow[Results[Value]]:
        """Opened by the host: one audit entry a value."""
        each = _one_each(contexts, values)
        items = [{"sealed": str(Sealed(value))} for value in values]
        for item, context in zip(items, each, strict=True):
            if context is not None:
                item["context"] = dict(context)  # type: ignore[assignment]
        opened, results = list[Value](), list[Mapping[str, Any]]()
        for start in range(0, len(items), OPEN_CHUNK):
            chunk = {"values": items[start : start + OPEN_CHUNK]}
            result = yield from self.call("value.open", chunk, purpose=purpose)
            results.append(result)
            for member in result["values"]:
                if "error" in member:
                    raise OpenError
                opened.append(_decode(member["cty"], member["value"]))
        return Results(opened, of=results)

    def open_column(
        self, values: Sequence[str], *, contexts: Sequence[Context | None] | None
    ) -> Flow[list[Value]]:
        """Opened here, under DEKs that the host unwraps: one audit entry a DEK."""
        each = _one_each(contexts, values)
        opened: list[Value] = []
        for text, context in zip(values, each, strict=True):
            sealed = Sealed(text)
            encrypted_key = sealed.encrypted_key
            content = self._opened.get(sealed.kid, encrypted_key, now=self._clock())
            if content is None:
                dek = yield from self._unwrap(sealed.kid, encrypted_key, sealed.header.ek)
                content = self._opened.add(sealed.kid, encrypted_key, dek, now=self._clock())
            opened.append(content.open(sealed, context))
        return opened

    def _unwrap(self, kid: str, encrypted_key: bytes, ek: str | None) -> Flow[Secret]:
        payload = {"kid": kid, "encrypted_key": jose.b64url_encode(encrypted_key)}
        if ek is not None:
            payload["ek"] = ek
        result = yield from self.call("key.unwrap", payload)
        return Secret(jose.b64url_decode(result["dek"]))

    # --- objects: sealed and opened by the driver, under keys from here ---

    def object_key(self, key: str, *, key_context: Context | None) -> Flow[ObjectKey]:
        dek = yield from self._lease(key, key_context, messages=1, size_bytes=0)
        return ObjectKey.of_dek(dek)

    def object_cek(self, header: ObjectHeader) -> Flow[Secret]:
        return (yield from self._unwrap(header.kid, header.encrypted_key, header.ek))

    def public_key(self, key: str) -> Flow[PublicKey]:
        result = yield from self.call("key.public", {"key": key})
        return (yield from self.vouched_for(result["statement"]))

    def vouched_for(self, statement: str) -> Flow[PublicKey]:
        """A public key that the appraised deployment says belongs to this tenant."""
        host = yield from attested(Attest(), jitter=self._jitter)
        return verify_public_key(
            statement, deployment=host.keyset.deployment, tenant=self._tenant, now=self._clock()
        )

    # --- confidential functions ---

    def invoke(
        self,
        function: str,
        inputs: Mapping[str, Any],
        *,
        context: Context | None,
        idempotency_key: str | None,
        purpose: str | None,
    ) -> Flow[Reply]:
        payload = {"function": function, "inputs": dict(inputs), "context": dict(context or {})}
        result = yield from self.call(
            "function.invoke", payload, idempotency_key=idempotency_key, purpose=purpose
        )
        return _read(Reply.from_result, result)

    def start(
        self,
        function: str,
        inputs: Mapping[str, Any],
        *,
        context: Mapping[str, Any] | None,
        batch: bool,
        idempotency_key: str | None,
    ) -> Flow[Job]:
        given = "columns" if batch else "inputs"
        payload = {"function": function, given: dict(inputs), "context": dict(context or {})}
        result = yield from self.call("function.start", payload, idempotency_key=idempotency_key)
        return _read(Job.from_result, result)

    def job(self, op: str, job: Job | str) -> Flow[Job]:
        result = yield from self.call(op, {"job": job.id if isinstance(job, Job) else job})
        return _read(Job.from_result, result)

    def wait(self, job: Job | str, *, timeout_seconds: float) -> Flow[Job]:
        until, pause = self._clock() + timeout_seconds, FIRST_POLL_SECONDS
        while not (found := (yield from self.job("job.get", job))).ended and self._clock() < until:
            yield Wait(seconds=pause)
            pause = min(2 * pause, LONGEST_POLL_SECONDS)
        return found

    def invoke_batch(
        self,
        function: str,
        columns: Mapping[str, Sequence[Any]],
        *,
        context: Mapping[str, Sequence[str]] | None,
        idempotency_key: str | None,
    ) -> Flow[BatchReply]:
        payload = {
            "function": function,
            "columns": {name: list(column) for name, column in columns.items()},
            "context": {name: list(column) for name, column in (context or {}).items()},
        }
        result = yield from self.call("function.invoke", payload, idempotency_key=idempotency_key)
        return _read(BatchReply.from_result, result)

    def stream(
        self, function: str, rows: Rows, context: Sequence[str], *, idempotency_key: str
    ) -> Flow[tuple[list[BatchReply], CloisterError | None]]:
        """One request of a stream: its replies, and what ended it before its time."""
        names = list(rows[0])
        if any(row.keys() != rows[0].keys() for row in rows):
            raise ConfigurationError("the rows of a stream have different members")
        columns = {name: [row[name] for row in rows] for name in names}
        payload = {
            "function": function,
            "columns": {name: column for name, column in columns.items() if name not in context},
            "context": {name: columns[name] for name in context if name in columns},
        }
        result = yield from self.call("function.stream", payload, idempotency_key=idempotency_key)
        replies = [_read(BatchReply.from_result, frame) for frame in result["frames"]]
        return replies, result["error"]


def in_parts(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[Rows]:
    """Rows in lists of at most so many; takes no more from the source than the next one."""
    if size < 1:
        raise ConfigurationError("rows_per_request is at least 1")
    source = iter(rows)
    while part := list(islice(source, size)):
        yield part


def _one_each(contexts: Sequence[Context | None] | None, values: Sequence[Any]) -> Sequence[Context | None]:
    """One context a value; none at all means no value has one."""
    if contexts is None:
        return [None] * len(values)
    if len(contexts) != len(values):
        raise ConfigurationError("there must be one context a value")
    return contexts


def bound_context(context: Context | None, key_context: Context | None) -> Context | None:
    """The context that is bound to the value: both parts together."""
    if key_context is None:
        return context
    if context is not None and context.keys() & key_context.keys():
        raise ConfigurationError("context and key_context must not share a name")
    return {**(context or {}), **key_context}


def _size(value: Value) -> int:
    """Bytes of plaintext, at most."""
    if isinstance(value, bytes):
        return len(value)
    return 4 * len(value if isinstance(value, str) else json.dumps(value))


def _decode(cty: str, value: Any) -> Value:
    return jose.b64url_decode(value) if cty == "octets" else value


def _read(parse: Callable[[Mapping[str, Any]], T], result: Mapping[str, Any]) -> T:
    try:
        return parse(result)
    except (KeyError, TypeError, ValueError):
        raise EvidenceError("the host's answer is malformed", hint="update the client or the host") from None
