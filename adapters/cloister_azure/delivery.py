"""One delivery: accepted offline, at most once recorded."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from cloister.attestation import AppraisalPolicy
from cloister.client import policy_from
from cloister.config import gather
from cloister.errors import EvidenceError
from cloister.faas import FunctionName
from cloister.function.names import check_origin
from cloister.protocol import VerifiedDelivery, verify_delivery
from cloister_azure.payload import Decoder

__all__ = ["Delivery", "Once", "Receiver"]

T = TypeVar("T")

_DELIVERY_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")


class Once(Protocol):
    """Port: where deliveries are recorded, kept longer than the host may repeat them."""

    def recorded(self, delivery_id: str) -> bool:
        """Whether there is a record of this delivery."""
        ...

    def record(self, delivery_id: str, content: bytes, metadata: Mapping[str, str]) -> bool:
        """Write content as the record, atomically and only if there is none; tell whether it was written.

        Raises:
            UnavailableError: The store did not answer; the record may or may not exist.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Delivery(Generic[T]):
    """A call that comes from the enclave, for this endpoint.

    Attributes:
        id: The same over all repetitions of one delivery.
        payload: What the function let out.
        function: The function's name.
        digest: The digest of its code.
        environment: Where that code ran: `hardware`, `simulated` or `test`.
        is_stored: Whether its effect was stored, now or before.
    """

    id: str
    payload: T = field(repr=False)
    function: str
    digest: str
    environment: str
    is_stored: bool = field(default=False, init=False)
    _once: Once = field(repr=False)

    def store(self, content: Any) -> bool:
        """Store the delivery's effect: one write that is effect and record at once.

        Whatever crashes before or after, there is one effect: before, the host sends it again; after,
        the record answers for it. It waits for the store: `async def` handlers write
        `await asyncio.to_thread(delivery.store, content)`.

        Args:
            content: bytes, text or JSON.

        Returns:
            False if it was stored before, by a sending that ran beside this one; nothing was changed.
        """
        match content:
            case bytes():
                raw = content
            case str():
                raw = content.encode()
            case _:
                raw = json.dumps(content, ensure_ascii=False).encode()
        written = self._once.record(self.id, raw, {"function": self.function, "digest": self.digest})
        self.is_stored = True
        return written


class Receiver:
    """Accepts the deliveries of one function at one endpoint; `from_enclave` puts it around a handler.

    Args:
        function: Whose deliveries are accepted; with a digest, that code's alone.
        once: Where they are recorded.
        decoder: Makes payloads what the handler declares.
        url: The endpoint's full public URL, where a gateway in front changes paths. By default
            CLOISTER_RECEIVER_URL followed by the path of the call.
        settings: Explicit settings: `tenant`, `policy`, `receiver_url`.
        digests: Digests of code that is accepted; empty accepts what the tenant's alias points to.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        function: FunctionName,
        *,
        once: Once,
        decoder: Decoder,
        url: str | None = None,
        settings: Mapping[str, Any] | None = None,
        digests: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._function = function
        self._once = once
        self._decoder = decoder
        self._url = url
        self._settings = dict(settings or {})
        self._digests = frozenset(digests) | ({function.digest} if function.digest else frozenset())
        self._clock = clock
        self._loaded: _Loaded | None = None

    def begin(self, body: bytes, *, method: str, url: str) -> Delivery[Any] | None:
        """Verify a call, offline; None if its delivery was recorded before.

        Args:
            body: The HTTP body, unverified.
            method: HTTP method.
            url: The call's URL, of which only the path is used: its host is what the caller claims.

        Raises:
            EvidenceError: It does not come from the enclave, or is not for this receiver.
            AppraisalError: It is by an enclave that the policy does not accept.
            FunctionError: It does, but its payload is not what the handler declares.
            ConfigurationError: A setting is missing.
            UnavailableError: The store did not answer.
        """
        loaded = self._load()
        target = self._url or f"{loaded.origin}{urlsplit(url).path}"
        # (1) It comes from an accepted enclave, for this endpoint, now.
        verified = verify_delivery(body, loaded.policy, method=method, url=target, now=self._clock())
        # (2) By our tenant's function: a host has other tenants, who may name functions alike.
        self._check(verified, loaded.tenant)
        payload = self._decoder(verified.payload)
        # (3) Not again.
        if self._once.recorded(verified.delivery_id):
            return None
        return Delivery(
            id=verified.delivery_id,
            payload=payload,
            function=verified.function,
            digest=verified.function_digest,
            environment=verified.attestation.environment,
            _once=self._once,
        )

    def finish(self, delivery: Delivery[Any]) -> None:
        """Record a delivery whose effect was elsewhere."""
        if not delivery.is_stored:
            delivery.store(b"")

    def _check(self, verified: VerifiedDelivery, tenant: str) -> None:
        if verified.tenant != tenant:
            raise EvidenceError("the delivery is by another tenant")
        if verified.function != self._function.name:
            raise EvidenceError("the delivery is by another function")
        if self._digests and verified.function_digest not in self._digests:
            raise EvidenceError(
                "the delivery is by other code of the function", hint="add the new digest to `digests`"
            )
        if not _DELIVERY_ID.fullmatch(verified.delivery_id):
            raise EvidenceError("the delivery's id cannot be used")

    def _load(self) -> _Loaded:
        if self._loaded is None:
            needed = ("tenant", "policy") if self._url else ("tenant", "policy", "receiver_url")
            values = gather(needed, **self._settings)
            origin = values["receiver_url"]
            self._loaded = _Loaded(
                tenant=str(values["tenant"]),
                policy=policy_from(Path(values["policy"])),
                origin=check_origin(origin, "CLOISTER_RECEIVER_URL") if origin else "",
            )
        return self._loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    tenant: str
    policy: AppraisalPolicy
    origin: str
