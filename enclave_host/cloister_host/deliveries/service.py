"""Looking after deliveries through the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from cloister_host.audit import Audit
from cloister_host.deliveries.outbox import OUTBOX, Outbox, OutboxRecord, State
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page, Request, Result
from cloister_host.policy import Grants
from cloister_host.store import Tx

__all__ = ["DeliveryInfo", "DeliveryList", "DeliveryReplay", "DeliveryService"]


class DeliveryReplay(Request):
    """Names a delivery."""

    delivery_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z", max_length=22)]


class DeliveryInfo(Result):
    """One delivery, without its payload (times in epoch seconds)."""

    delivery_id: str
    function: str
    digest: str
    url: str
    state: State
    attempts: int
    next_at: int
    created_at: int
    error: str


class DeliveryList(Result):
    """One page of deliveries; `next` continues it, and is empty at the end."""

    deliveries: list[DeliveryInfo]
    next: str


class DeliveryService:
    """The deliveries of the caller's tenant."""

    def __init__(self, outbox: Outbox, grants: Grants, audit: Audit) -> None:
        self._outbox = outbox
        self._grants = grants
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "delivery.list": Operation(Page, self.list, effect=False),
            "delivery.replay": Operation(DeliveryReplay, self.replay, effect=True),
        }

    def list(self, caller: Caller, request: Page, tx: Tx) -> DeliveryList:
        """List deliveries: pending, delivered, dead."""
        self._grants.require(tx, caller, "delivery.manage", "delivery/*")
        rows = tx.scan(OUTBOX, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="delivery.list", resource="delivery/*")
        return DeliveryList(
            deliveries=[_info(row.id, row.record) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def replay(self, caller: Caller, request: DeliveryReplay, tx: Tx) -> DeliveryInfo:
        """Send a dead delivery again, under the same id."""
        resource = f"delivery/{request.delivery_id}"
        self._grants.require(tx, caller, "delivery.manage", resource)
        record = self._outbox.replay(tx, caller.tenant, request.delivery_id)
        self._audit.record(tx, caller, act="delivery.replay", resource=resource)
        return _info(request.delivery_id, record)


def _info(delivery_id: str, record: OutboxRecord) -> DeliveryInfo:
    return DeliveryInfo(
        delivery_id=delivery_id,
        function=record.function,
        digest=record.digest,
        url=record.url + record.path,
        state=record.state,
        attempts=record.attempts,
        next_at=record.next_at,
        created_at=record.created_at,
        error=record.error,
    )
