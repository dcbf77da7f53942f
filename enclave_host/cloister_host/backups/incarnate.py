"""A restored store begins a new life: noted in its log, and doing nothing twice without somebody's word."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloister import jose
from cloister.backups import Manifest
from cloister_host.audit import Audit
from cloister_host.backups.records import Incarnation, incarnation, write_incarnation
from cloister_host.deliveries.outbox import OUTBOX, Outbox
from cloister_host.functions.jobs.records import JOBS, Jobs
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.identity.records import TENANTS
from cloister_host.store import Row, Tx

__all__ = ["HELD", "Restored", "begin_incarnation"]

HELD: Final = "restored"
NAME_BYTES: Final = 16
_RESTORE: Final = Caller(tenant=SYSTEM_TENANT, principal="restore", kind="service", correlation_id="restore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did.

    Attributes:
        deployment: Whose store it is.
        backup: What was restored.
        incarnation: How often the deployment has been restored.
        held: Deliveries that were under way: nobody knows whether they arrived, so they wait for a person.
        lost: Jobs that may have had effects elsewhere, and are not run again.
        again: It had been restored completely before; nothing was done.
    """

    deployment: str
    backup: str
    incarnation: int
    held: int = 0
    lost: int = 0
    again: bool = False


def begin_incarnation(
    tx: Tx,
    audit: Audit,
    manifest: Manifest,
    *,
    clock: Callable[[], float],
    at_least: int,
    detail: Mapping[str, str | int],
) -> Restored:
    """Note the restore, and let nothing that was under way be done twice without somebody's word.

    Args:
        tx: The transaction of the restore.
        audit: Gets its entries.
        manifest: Of the backup.
        clock: Epoch seconds.
        at_least: The number of an incarnation that is known elsewhere.
        detail: What else the log says of it, such as the rollback that was accepted.
    """
    number = max(incarnation(tx).number, at_least) + 1
    held = sum(_hold(tx, audit, clock, tenant) for tenant in _tenants(tx))
    lost = sum(_give_up(tx, clock, tenant) for tenant in _tenants(tx))
    record = Incarnation(
        number=number,
        name=jose.b64url_encode(os.urandom(NAME_BYTES)),
        backup=manifest.id,
        restored_at=int(clock()),
        log_size=manifest.head.size,
    )
    write_incarnation(tx, record)
    audit.record(
        tx,
        _RESTORE,
        act="deployment.restore",
        resource=f"backup/{manifest.id}",
        detail={
            "incarnation": number,
            "log_size": manifest.head.size,
            "backup_created_at": manifest.created_at,
            "deliveries_held": held,
            "jobs_lost": lost,
            **detail,
        },
    )
    return Restored(
        deployment=manifest.deployment, backup=manifest.id, incarnation=number, held=held, lost=lost
    )


def _tenants(tx: Tx) -> list[str]:
    """Every tenant whose rows can be opened."""
    return [row.id for row in _all(tx, TENANTS, SYSTEM_TENANT) if tx.is_open(row.id)]


def _hold(tx: Tx, audit: Audit, clock: Callable[[], float], tenant: str) -> int:
    """Deliveries that may have been sent after the backup: kept until somebody replays them."""
    outbox, held = Outbox(clock), 0
    for row in _all(tx, OUTBOX, tenant):
        if row.record.state == "pending":
            sender = outbox.hold(tx, row, error=HELD)
            audit.record(
                tx,
                sender,
                act="deliver",
                resource=f"origin/{row.record.url}",
                outcome="unknown",
                detail={"delivery": row.id, "attempt": row.record.attempts, "error": HELD},
            )
            held += 1
    return held


def _give_up(tx: Tx, clock: Callable[[], float], tenant: str) -> int:
    """Jobs that may have had effects elsewhere after the backup."""
    jobs, lost = Jobs(clock), 0
    for row in _all(tx, JOBS, tenant):
        if row.record.state in {"waiting", "running"} and not row.record.repeatable:
            jobs.settle(tx, row, "lost")
            lost += 1
    return lost


def _all(tx: Tx, table: Any, tenant: str) -> Iterator[Row[Any]]:
    after = ""
    while rows := tx.scan(table, tenant, after=after):
        yield from rows
        after = rows[-1].id
