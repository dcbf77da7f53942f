"""The giver's end of a hand-over: two HTTP answers, and an entry in the log between them."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from cloister import jose
from cloister.errors import AttestationError, EvidenceError
from cloister.protocol.handover import Giving, Terms
from cloister.protocol.handover_messages import NONCE_BYTES, HandedOver, Proof, claimed_nonce
from cloister_host.audit import Audit
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.keysets import KeysetManager
from cloister_host.store import Store

__all__ = ["Giver", "Prove"]

MAX_OPEN: Final = 64
OPEN_SECONDS: Final = 30.0
GIVER: Final = "host/handover"  # no principal can be called this
_NONE: Final = (0.0, 0, None)

Prove = Callable[[bytes, bytes], Proof]
"""Makes evidence of this machine over (statement, nonce)."""

log = structlog.get_logger(__name__)


class Giver:
    """Hands keys over to hosts that prove what they are.

    Args:
        terms: What this host holds peers to, at this moment.
        prove: Makes its own evidence.
        keysets: Its request keys.
        deployment_key: Signs what is handed over.
        store: Where hand-overs are recorded; its counters go along.
        audit: The log.
        clock: Epoch seconds.

    Attributes:
        follow: Follows the list of holders as it stands now.
    """

    def __init__(
        self,
        *,
        terms: Callable[[], Terms],
        prove: Prove,
        keysets: KeysetManager,
        deployment_key: jose.Key,
        store: Store,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self.follow: Callable[[], object] = lambda: None
        self._terms = terms
        self._prove = prove
        self._keysets = keysets
        self._deployment_key = deployment_key
        self._store = store
        self._audit = audit
        self._clock = clock
        self._open: OrderedDict[bytes, tuple[float, int, Giving | None]] = OrderedDict()
        self._lock = threading.Lock()

    def hello(self, unverified_hello: bytes) -> bytes:
        """Answer the first message.

        Raises:
            AttestationError: The hand-over is refused.
            UnavailableError: This host has no evidence now, or may hold no keys itself.
        """
        self.follow()
        self._keysets.keyset()
        terms, nonce = self._terms(), os.urandom(NONCE_BYTES)
        with _refusals():
            giving = Giving(terms, unverified_hello, nonce=nonce)
            challenge = giving.challenge(self._prove(*giving.statement))
        with self._lock:
            self._open[nonce] = time.monotonic() + OPEN_SECONDS, terms.holders_version, giving
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return challenge

    def claim(self, unverified_claim: bytes) -> bytes:
        """Answer the third message: the keys, sealed to the receiver.

        Raises:
            AttestationError: The hand-over is refused.
            UnavailableError: It could not be recorded.
        """
        with _refusals():
            nonce = claimed_nonce(unverified_claim)
            with self._lock:
                # Taken out, so that a claim is answered once.
                until, version, giving = self._open.pop(nonce, _NONE)
            if giving is None or time.monotonic() > until:
                raise EvidenceError("nonce: no hand-over with it is open here", hint="begin again")
            holder = giving.claimed(unverified_claim, now=self._clock())
        if self._terms().holders_version != version:
            raise EvidenceError("the list of holders has just changed", hint="begin again")
        contents = HandedOver(
            keys=self._keysets.to_give() if "request-keys" in giving.wants else (),
            counters=self._store.counters(),
        )
        self._record(giving, keys=len(contents.keys), format_=str(holder["format"]))
        return giving.grant(contents, deployment_key=self._deployment_key)

    def _record(self, giving: Giving, *, keys: int, format_: str) -> None:
        """Nothing leaves before it is written down that it does."""
        caller = Caller(
            tenant=SYSTEM_TENANT, principal=GIVER, kind="service", correlation_id=secrets.token_hex(8)
        )
        detail: dict[str, str | int] = {"wants": " ".join(sorted(giving.wants)), "keys": keys}
        with self._store.begin() as tx:
            self._audit.record(tx, caller, act="handover.give", resource=f"holder/{format_}", detail=detail)


@contextmanager
def _refusals() -> Iterator[None]:
    """Log a refusal by its step, with nothing of what the peer sent."""
    try:
        yield
    except AttestationError as error:
        log.warning("handover.refused", reason=str(error.args[0]))
        raise
