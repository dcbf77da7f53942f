"""The outbox: deliveries written in the transaction of the result they carry."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
import rfc8785
from msgspec.structs import replace
from sqlalchemy import text

from cloister.errors import ConfigurationError, LimitError
from cloister.function.egress import Delivery
from cloister.jose import b64url_encode
from cloister_host.hints import MENDED_AT_ONCE
from cloister_host.identity.caller import Caller
from cloister_host.store import Row, Table, TamperedError, Tx

__all__ = ["OUTBOX", "Due", "Outbox", "OutboxRecord"]

MAX_PAYLOAD_BYTES: Final = 1 << 20
ID_BYTES: Final = 16

State = Literal["pending", "delivered", "dead"]


class OutboxRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of an `outbox` row; its id is the delivery id, its secret part the payload.

    Attributes:
        next_at: When it is due (epoch seconds); while it is being sent, when that counts as lost.
        error: Code of the last failure.
    """

    function: str
    digest: str
    principal: str
    correlation_id: str
    url: str
    path: str
    state: State
    attempts: int
    next_at: int
    created_at: int
    error: str


OUTBOX: Final = Table("outbox", OutboxRecord, "delivery")

_QUEUE: Final = text("INSERT INTO outbox_due (due, tenant, id) VALUES (:due, :tenant, :id)")
_UNQUEUE: Final = text("DELETE FROM outbox_due WHERE tenant = :tenant AND id = :id")
_HINTS: Final = text(
    "SELECT o.id, d.due FROM outbox o LEFT JOIN outbox_due d ON d.tenant = o.tenant AND d.id = o.id"
    " WHERE o.tenant = :tenant AND o.id > :after AND o.content LIKE :pending ORDER BY o.id LIMIT :limit"
)
_PENDING: Final = '%"state":"pending"%'
_DUE: Final = text("SELECT tenant, id FROM outbox_due WHERE due <= :now ORDER BY due LIMIT :limit")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was leased for one sending."""

    row: Row[OutboxRecord]
    payload: bytes

    def __repr__(self) -> str:
        return f"Due({self.row.id})"

    @property
    def sender(self) -> Caller:
        """The function that delivers."""
        record = self.row.record
        return Caller(
            tenant=self.row.tenant,
            principal=f"function:{record.digest}",
            kind="function",
            correlation_id=record.correlation_id,
            on_behalf_of=record.principal,
        )


class Outbox:
    """Rows of deliveries, and the index of when each is due.

    The index is only a hint to look: what is sent, and whether, stands in the protected row.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.awake: Final = threading.Event()

    def add(self, tx: Tx, function: Caller, name: str, target: Delivery, payload: Any) -> str:
        """Write a delivery into the transaction of its result; returns its id.

        Raises:
            LimitError: The payload is too large.
        """
        encoded = rfc8785.dumps(payload)
        if len(encoded) > MAX_PAYLOAD_BYTES:
            raise LimitError("the result is too large to be delivered", hint="at most 1 MiB")
        now = int(self._clock())
        record = OutboxRecord(
            function=name,
            digest=function.principal.removeprefix("function:"),
            principal=function.on_behalf_of,
            correlation_id=function.correlation_id,
            url=target.url,
            path=target.path,
            state="pending",
            attempts=0,
            next_at=now,
            created_at=now,
            error="",
        )
        delivery_id = b64url_encode(os.urandom(ID_BYTES))
        tx.insert(OUTBOX, function.tenant, delivery_id, record, secret=encoded)
        tx.execute(_QUEUE, {"due": now, "tenant": function.tenant, "id": delivery_id})
        return delivery_id

    def wake(self) -> None:
        """Let the dispatcher look now."""
        self.awake.set()

    def due(self, tx: Tx, *, limit: int) -> list[tuple[str, str]]:
        """Deliveries to look at: tenant and id, as the index has them."""
        found = tx.execute(_DUE, {"now": int(self._clock()), "limit": limit})
        return [(str(tenant), str(delivery_id)) for tenant, delivery_id in map(tuple, found.all())]

    def lease(self, tx: Tx, tenant: str, delivery_id: str, *, seconds: int) -> Due | None:
        """Take a delivery for one sending, if it is due; if nothing is reported back, it is due again then.

        One of a tenant that is sealed off is looked at again then.

        Raises:
            TamperedError: The host did not write it so.
        """
        now = int(self._clock())
        if not tx.is_open(tenant):
            self.postpone(tx, tenant, delivery_id, seconds=seconds)
            return None
        row = tx.get(OUTBOX, tenant, delivery_id)
        if row is None or row.record.state != "pending":
            tx.execute(_UNQUEUE, {"tenant": tenant, "id": delivery_id})
            return None
        if row.record.next_at > now:
            self._requeue(tx, row)
            return None
        payload = tx.reveal(OUTBOX, row).reveal()
        leased = replace(row.record, attempts=row.record.attempts + 1, next_at=now + seconds)
        return Due(row=self._write(tx, row, leased, payload), payload=payload)

    def postpone(self, tx: Tx, tenant: str, delivery_id: str, *, seconds: int) -> None:
        """Look at a delivery later; its row stays as it is."""
        tx.execute(_UNQUEUE, {"tenant": tenant, "id": delivery_id})
        tx.execute(_QUEUE, {"due": int(self._clock()) + seconds, "tenant": tenant, "id": delivery_id})

    def mend(self, tx: Tx, tenant: str, after: str) -> str:
        """Look again where a tenant's pending deliveries say, whatever the index has; see `Hints`."""
        page = {"tenant": tenant, "after": after, "pending": _PENDING, "limit": MENDED_AT_ONCE}
        found = tx.execute(_HINTS, page).all()
        for delivery_id, due in map(tuple, found):
            with suppress(TamperedError):  # whoever looks at it finds that out, and others must not wait
                row = tx.get(OUTBOX, tenant, str(delivery_id))
                if row is not None and row.record.state == "pending" and row.record.next_at != due:
                    self._requeue(tx, row)
        return str(found[-1][0]) if len(found) == MENDED_AT_ONCE else ""

    def settle(self, tx: Tx, due: Due, *, state: State, error: str = "", wait_seconds: float = 0.0) -> None:
        """Write down how a sending ended.

        A settlement that comes after its lease ran out, when another sending has begun, changes nothing
        but a success: the receiver has it, whoever sent it.
        """
        row = tx.get(OUTBOX, due.row.tenant, due.row.id)
        if row is None or row.record.state != "pending":
            return
        if row.version != due.row.version and state != "delivered":
            return
        next_at = int(self._clock() + wait_seconds)
        # The payload has done its work once it is delivered.
        payload = None if state == "delivered" else due.payload
        self._write(tx, row, replace(row.record, state=state, error=error, next_at=next_at), payload)

    def hold(self, tx: Tx, row: Row[OutboxRecord], *, error: str) -> Caller:
        """Stop sending a delivery until somebody replays it, under the same id; gives its sender."""
        payload = tx.reveal(OUTBOX, row).reveal()
        self._write(tx, row, replace(row.record, state="dead", error=error), payload)
        return Due(row=row, payload=payload).sender

    def replay(self, tx: Tx, tenant: str, delivery_id: str) -> OutboxRecord:
        """Make a dead delivery due again, under the same id.

        Raises:
            ConfigurationError: There is none by this id, or it is not dead.
        """
        row = tx.get(OUTBOX, tenant, delivery_id)
        if row is None:
            raise ConfigurationError("there is no such delivery", hint="see `cloister delivery list`")
        if row.record.state != "dead":
            raise ConfigurationError(
                f"this delivery is {row.record.state}", hint="only a dead delivery is replayed"
            )
        record = replace(row.record, state="pending", attempts=0, next_at=int(self._clock()), error="")
        return self._write(tx, row, record, tx.reveal(OUTBOX, row).reveal()).record

    def _write(
        self, tx: Tx, row: Row[OutboxRecord], record: OutboxRecord, payload: bytes | None
    ) -> Row[OutboxRecord]:
        written = tx.put(OUTBOX, row.tenant, row.id, record, secret=payload)
        self._requeue(tx, written)
        return written

    def _requeue(self, tx: Tx, row: Row[OutboxRecord]) -> None:
        tx.execute(_UNQUEUE, {"tenant": row.tenant, "id": row.id})
        if row.record.state == "pending":
            tx.execute(_QUEUE, {"due": row.record.next_at, "tenant": row.tenant, "id": row.id})
