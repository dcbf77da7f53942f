"""What all operations of one client stand on, without I/O: one call, data keys, keys that are vouched for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from cloister import jose, telemetry
from cloister._host import KnownHost
from cloister.attestation import AppraisalPolicy
from cloister.envelope import DataKey, Dek, DekCache, OpenCache
from cloister.errors import ConfigurationError, EvidenceError, LimitError
from cloister.identity import Identity
from cloister.operations.driving import Flow
from cloister.protocol.attest import AttestationResult
from cloister.protocol.public_key import PublicKey, verify_public_key
from cloister.protocol.session import Attest, Authenticate, attested, exchange, receive
from cloister.receipts import HeadKeeper, TreeHead
from cloister.secret import Secret

__all__ = ["Context", "Flows", "bound_context", "read"]

T = TypeVar("T")
Context = Mapping[str, str]


class Flows:
    """What one tenant's client knows and keeps, and the flows that operations are made of.

    Attributes:
        tenant: Whose client it is.
        host: The host that was appraised.
        opened: Data keys that were unwrapped for values.
    """

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
        self.tenant = tenant
        self.host = KnownHost(policy, clock=clock, jitter=jitter)
        self.heads = heads
        self.clock = clock
        self.opened = OpenCache()
        self._identity = identity
        self._jitter = jitter
        self._deks = DekCache()

    # --- attestation: the driver holds the lock, so that one flight serves all who wait ---

    def attest(self) -> Flow[AttestationResult]:
        """Challenge the host now."""
        host = yield from attested(Attest(fresh=True), jitter=self._jitter)
        return replace(host, not_checked=(*host.not_checked, *self.heads.not_checked))

    def forget(self) -> None:
        """Drop everything drawn or learned so far, as after a snapshot was restored."""
        self.host.forget()
        self._deks.clear()
        self.opened.clear()

    def credential(self, step: Authenticate) -> Mapping[str, Any]:
        """The caller's credential for one request; may wait for whoever issues it."""
        return self._identity.credential(deployment=step.deployment, request=step.request)

    def tree_head(self) -> TreeHead | None:
        """The last head of the audit log that this client accepted, or kept from an earlier run."""
        keyset = self.host.keyset
        return None if keyset is None else self.heads.kept(keyset)

    # --- one call ---

    def call(
        self,
        op: str,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Flow[Mapping[str, Any]]:
        """One operation of the host."""
        body: dict[str, Any] = {
            "op": op,
            "tenant": self.tenant,
            "idempotency_key": idempotency_key or secrets.token_urlsafe(16),
            "payload": payload,
        }
        if purpose:
            body["purpose"] = purpose
        with telemetry.operation(op):
            return (yield from exchange(body, clock=self.clock, jitter=self._jitter, heads=self.heads))

    def receive(
        self, op: str, payload: Mapping[str, Any], take: Callable[[Mapping[str, Any]], object]
    ) -> Flow[None]:
        """One operation of the host whose results come as a stream."""
        body = {"op": op, "tenant": self.tenant, "payload": payload}
        with telemetry.operation(op):
            yield from receive(body, take=take, clock=self.clock, jitter=self._jitter, heads=self.heads)

    # --- keys ---

    def lease(self, key: str, key_context: Context | None, *, messages: int, size_bytes: int) -> Flow[Dek]:
        """A data key that may still seal so much; a fresh one if there is none."""
        dek = self._deks.lease(key, key_context, messages=messages, size_bytes=size_bytes, now=self.clock())
        if dek is None:
            dek = yield from self._fresh_dek(key, key_context)
            if not dek.lease(messages=messages, size_bytes=size_bytes, now=self.clock()):
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
        return self._deks.add(key, key_context, data_key, now=self.clock())

    def unwrap(self, kid: str, encrypted_key: bytes, ek: str | None, *, purpose: str | None) -> Flow[Secret]:
        """A data key, or the key of one value or object, that the host unwraps."""
        payload = {"kid": kid, "encrypted_key": jose.b64url_encode(encrypted_key)}
        if ek is not None:
            payload["ek"] = ek
        result = yield from self.call("key.unwrap", payload, purpose=purpose)
        return Secret(jose.b64url_decode(result["dek"]))

    def vouched_for(self, statement: str) -> Flow[PublicKey]:
        """A public key that the appraised deployment says belongs to this tenant."""
        host = yield from attested(Attest(), jitter=self._jitter)
        return verify_public_key(
            statement, deployment=host.keyset.deployment, tenant=self.tenant, now=self.clock()
        )


def bound_context(context: Context | None, key_context: Context | None) -> Context | None:
    """The context that is bound to the value: both parts together."""
    if key_context is None:
        return context
    if context is not None and context.keys() & key_context.keys():
        raise ConfigurationError("context and key_context must not share a name")
    return {**(context or {}), **key_context}


def read(parse: Callable[[Mapping[str, Any]], T], result: Mapping[str, Any]) -> T:
    """What a result holds; raises `EvidenceError` if it is malformed."""
    try:
        return parse(result)
    except (KeyError, TypeError, ValueError):
        raise EvidenceError("the host's answer is malformed", hint="update the client or the host") from None
