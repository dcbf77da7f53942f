"""Sends what is in the outbox until the receiver has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import structlog

from cloister.errors import CloisterError, DeniedError
from cloister.protocol.attest import AttestationDocument
from cloister.protocol.delivery import payload_digest
from cloister_host.audit import Audit, Outcome
from cloister_host.audit.damage import LOOKED_AT_AGAIN_SECONDS, report_damage
from cloister_host.deliveries.outbox import Due, Outbox
from cloister_host.deliveries.schedule import Schedule
from cloister_host.egress import Egress
from cloister_host.policy import Grants
from cloister_host.store import TamperedError, Tx

__all__ = ["DeliverySigner", "Dispatcher", "Schedule"]

log = structlog.get_logger(__name__)

_LEASE_SECONDS: Final = 60
_BATCH: Final = 16
_SENDERS: Final = 4
_SUCCESS: Final = range(200, 300)


class DeliverySigner(Protocol):
    """Proves where a delivery comes from."""

    def sign_delivery(self, claims: Mapping[str, Any]) -> str:
        """Sign one sending; deployment, keyset and times are added."""
        ...

    def staple(self) -> AttestationDocument:
        """Evidence with which the receiver appraises the host offline."""
        ...


class Dispatcher:
    """A thread that leases due deliveries, and a few that send them."""

    def __init__(
        self,
        *,
        begin: Callable[[], AbstractContextManager[Tx]],
        outbox: Outbox,
        egress: Egress,
        signer: DeliverySigner,
        grants: Grants,
        audit: Audit,
        schedule: Schedule | None = None,
    ) -> None:
        self._begin = begin
        self._outbox = outbox
        self._egress = egress
        self._signer = signer
        self._grants = grants
        self._audit = audit
        self._schedule = schedule or Schedule()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)
        self._senders = ThreadPoolExecutor(max_workers=_SENDERS, thread_name_prefix="delivery")

    def start(self) -> None:
        """Begin to deliver, also what an earlier process left behind."""
        self._thread.start()

    def close(self) -> None:
        """Finish the sendings in progress and stop."""
        self._stopping.set()
        self._outbox.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._senders.shutdown()

    def deliver_due(self) -> int:
        """Send everything that is due, once; returns how many that were."""
        leased = self._lease()
        list(self._senders.map(self._send, leased))
        return len(leased)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._outbox.awake.clear()
            try:
                sent = self.deliver_due()
            except CloisterError as error:
                # The store is busy or gone; what was leased becomes due again.
                log.warning("deliveries.paused", code=error.code)
                sent = 0
            except Exception as error:  # noqa: BLE001 - one bad row must not end every delivery
                log.error("deliveries.failed", error=type(error).__name__)  # noqa: TRY400 - no traceback
                sent = 0
            if not sent:
                self._outbox.awake.wait(self._schedule.poll_seconds)

    def _lease(self) -> list[Due]:
        """Take what is due, each in a transaction of its own: damage to one holds up no other."""
        with self._begin() as tx:
            found = self._outbox.due(tx, limit=_BATCH)
        leased = []
        for tenant, delivery_id in found:
            try:
                due = self._take(tenant, delivery_id)
            except CloisterError as error:
                # What was taken is sent all the same.
                log.warning("deliveries.paused", code=error.code)
                break
            if due is not None:
                leased.append(due)
        return leased

    def _take(self, tenant: str, delivery_id: str) -> Due | None:
        try:
            with self._begin() as tx:
                return self._leased(tx, tenant, delivery_id)
        except TamperedError as error:
            with self._begin() as tx:
                self._outbox.postpone(tx, tenant, delivery_id, seconds=LOOKED_AT_AGAIN_SECONDS)
                report_damage(self._audit, tx, tenant=tenant, act="deliver", row_id=delivery_id, error=error)
            return None

    def _leased(self, tx: Tx, tenant: str, delivery_id: str) -> Due | None:
        """Lease a delivery; the right to deliver is asked for again each time."""
        due = self._outbox.lease(tx, tenant, delivery_id, seconds=_LEASE_SECONDS)
        if due is None:
            return None
        try:
            self._grants.require(tx, due.sender, "deliver", f"origin/{due.row.record.url}")
        except DeniedError as error:
            self._outbox.settle(tx, due, state="dead", error=error.code)
            return None
        self._record(tx, due, "intent")
        return due

    def _send(self, due: Due) -> None:
        record = due.row.record
        try:
            status = self._post(due)
        except CloisterError as error:
            # Nobody knows whether the receiver acted: it recognises the id when it comes again.
            self._settle(due, "unknown", error.code)
        else:
            if status in _SUCCESS:
                self._settle(due, "done", "")
            else:
                self._settle(due, "failed", f"status-{status}")
        log.info("delivery.sent", delivery_id=due.row.id, function=record.function, attempt=record.attempts)

    def _post(self, due: Due) -> int:
        record, payload = due.row.record, json.loads(due.payload)
        token = self._signer.sign_delivery(
            {
                "aud": record.url,
                "htm": "POST",
                "htu": record.url + record.path,
                "tenant": due.row.tenant,
                "function": record.function,
                "function_digest": record.digest,
                "delivery_id": due.row.id,
                "payload_digest": payload_digest(payload),
            }
        )
        proof = {"delivery": token, "staple": self._signer.staple().to_json()}
        body = json.dumps({"payload": payload, "cloister": proof}, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", "idempotency-key": due.row.id}
        return self._egress.post(record.url, record.path, body, headers=headers, tenant=due.row.tenant).status

    def _settle(self, due: Due, outcome: Outcome, error: str) -> None:
        attempts = due.row.record.attempts
        with self._begin() as tx:
            self._record(tx, due, outcome, error=error)
            if outcome == "done":
                self._outbox.settle(tx, due, state="delivered")
            elif attempts >= self._schedule.attempts:
                self._outbox.settle(tx, due, state="dead", error=error)
            else:
                wait = self._schedule.wait_seconds(attempts)
                self._outbox.settle(tx, due, state="pending", error=error, wait_seconds=wait)

    def _record(self, tx: Tx, due: Due, outcome: Outcome, error: str = "") -> None:
        self._audit.record(
            tx,
            due.sender,
            act="deliver",
            resource=f"origin/{due.row.record.url}",
            outcome=outcome,
            detail={"delivery": due.row.id, "attempt": due.row.record.attempts, "error": error},
        )
