"""Streamed replies: an operation whose result comes in slices, each an effect of its own (PROTOCOL 6).

A slice is claimed, carried out and remembered under an idempotency key of its own. So a stream needs no
stored reply: whoever asks again, with the same idempotency key, gets what was done from the store, and the
rest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from cloister_host.functions.ports import Act
from cloister_host.identity.caller import Caller
from cloister_host.services import Services
from cloister_host.store import Tx
from cloister_host.store.idempotency import Done

__all__ = ["Slices"]


class Slices:
    """What a streamed operation works with.

    Args:
        services: Of the host.
        caller: Who asks.
        op: The operation.
        key: The idempotency key of the whole.
        digest: What that key stands for.
        act: Makes the act of a slice, as for a staged operation.
    """

    def __init__(
        self,
        *,
        services: Services,
        caller: Caller,
        op: str,
        key: str,
        digest: bytes,
        act: Callable[..., Any],
    ) -> None:
        self._services = services
        self._caller = caller
        self._op = op
        self._key = key
        self._digest = digest
        self._act = act

    def begin(self) -> AbstractContextManager[Tx]:
        """A transaction that belongs to no slice."""
        return self._services.store.begin()

    def decided(self, tx: Tx, what: str, decide: Callable[[], bytes]) -> bytes:
        """What was decided when this was first asked for, or is now; the same for every repetition."""
        idempotency, key = self._services.idempotency, f"{self._key}/{what}"
        claim = idempotency.claim(tx, self._caller, self._op, key, self._digest)
        if isinstance(claim, Done):
            return claim.result
        decision = decide()
        idempotency.finish(tx, self._caller, self._op, key, decision)
        return decision

    def once(self, index: int, work: Callable[[Act], object]) -> bytes:
        """Do one slice, or give what it gave before; returns its result as JSON."""
        services, caller, key = self._services, self._caller, f"{self._key}/{index}"
        results: list[bytes] = []

        def answer(tx: Tx, result: bytes) -> str:
            services.idempotency.finish(tx, caller, self._op, key, result)
            results.append(result)
            return ""

        with ExitStack() as first:
            tx = first.enter_context(services.store.begin())
            claim = services.idempotency.claim(tx, caller, self._op, key, self._digest)
            if isinstance(claim, Done):
                return claim.result
            act = self._act(first=first.pop_all(), tx=tx, answer=answer)
        try:
            work(act)
        except BaseException:
            act.abandon()
            with services.store.begin() as tx:
                services.idempotency.release(tx, caller, self._op, key)
            raise
        return results[0]
