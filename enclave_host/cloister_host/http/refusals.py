"""How a request that failed is answered: sealed, recorded, and without a word of what it worked on."""

from __future__ import annotations

from typing import Any, Final

import msgspec

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
from cloister.protocol import OpenedRequest, seal_reply
from cloister_host.audit.receipts import Receipts
from cloister_host.http.requests import Body, Task
from cloister_host.identity.caller import Caller
from cloister_host.services import Services
from cloister_host.store import Tx
from cloister_host.store.replay import ReplayError

__all__ = ["Refusals"]

RECORDED: Final = (
    ConfigurationError,
    DeniedError,
    FunctionError,
    LimitError,
    OpenError,
    QuorumNeededError,
)
"""What gets an entry in the log and a receipt; other failures say nothing about the request."""


class Refusals:
    """Answers what failed.

    Args:
        services: Of the host.
        receipts: Issued for refusals of known callers.
    """

    def __init__(self, services: Services, receipts: Receipts) -> None:
        self._services = services
        self._receipts = receipts

    def reply(
        self, request: OpenedRequest, task: Task | None, failure: CloisterError, correlation_id: str
    ) -> str:
        """Seal an error, and keep it for a repetition unless it is about this very request."""
        # Whoever could not say who they are must not be able to fill the store, or make it work.
        if task is None or task.caller is None or isinstance(failure, ReplayError):
            return seal_reply({"error": _members(failure, correlation_id)}, request=request)
        with self._services.store.begin() as tx:
            error = self.error(tx, request, task, failure, correlation_id)
            reply = seal_reply(error + self._log_part(tx, task.body) + b"}", request=request)
            self._services.replay.keep(tx, request.jti, request.digest, request.expires, reply)
        return reply

    def error(
        self, tx: Tx, request: OpenedRequest, task: Task, failure: CloisterError, correlation_id: str
    ) -> bytes:
        """The beginning of a reply to a known caller that says what failed."""
        members = _members(failure, correlation_id)
        if task.caller is not None and isinstance(failure, RECORDED):
            members["receipt"] = self._refusal(tx, request, task.body.op, task.caller, failure)
        encoded = msgspec.json.encode(members)
        if len(encoded) < task.length:
            encoded = encoded[:-1] + b" " * (task.length - len(encoded)) + b"}"
        return b'{"error":' + encoded

    def _log_part(self, tx: Tx, body: Body) -> bytes:
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
