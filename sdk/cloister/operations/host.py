"""The host itself, and whatever it can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloister.operations.driving import Flow, Operations, operation
from cloister.protocol.attest import AttestationResult

__all__ = ["HostOperations"]


class HostOperations(Operations):
    """The part of a client that is about the host, and every operation that has no method of its own."""

    @operation
    def call(
        self,
        op: str,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        purpose: str | None = None,
    ) -> Flow[Mapping[str, Any]]:
        """Any operation of the host by name, for example `key.create`; `/openapi.json` lists them.

        Args:
            op: Its name.
            payload: What it takes.
            idempotency_key: Constant over the caller's own retries; effects happen once under it.
            purpose: What for. It is recorded, and grants can depend on it.
        """
        return (yield from self._flows.call(op, payload, idempotency_key=idempotency_key, purpose=purpose))

    @operation
    def attest(self) -> Flow[AttestationResult]:
        """Appraise the host now, and return what was checked and what was not."""
        return (yield from self._flows.attest())
