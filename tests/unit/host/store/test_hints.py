"""With a pen in the tables that only tell where to look: nothing is forgotten, and nothing done for it."""

from __future__ import annotations

import pytest

from cloister.function.egress import Delivery
from cloister_host.deliveries.outbox import Outbox
from cloister_host.functions.jobs.records import Jobs
from cloister_host.functions.messages import Invoke
from cloister_host.hints import MENDED_AT_ONCE, Hints
from cloister_host.keymanager.scheduler import Scheduler
from cloister_host.store.idempotency import KEPT_SECONDS, Fresh
from support.host_world import HostWorld, caller

TARGET = Delivery(url="https://partner.example", path="/in")


def delivery(host: HostWorld) -> str:
    with host.store.begin() as tx:
        return Outbox(host.clock).add(tx, caller("app").as_function("d"), "f", TARGET, {"a": 1})


def job(host: HostWorld) -> str:
    with host.store.begin() as tx:
        return Jobs(host.clock).add(tx, caller("app"), Invoke(function="f@d"), digest="d", repeatable=True).id


def mend(host: HostWorld, hints: Hints | None = None) -> None:
    """One round of a host's scheduler."""
    mends = [Outbox(host.clock).mend, Jobs(host.clock).mend, host.services.idempotency.mend]
    made = hints or Hints(host.monotonic, [(one, 300.0) for one in mends])
    Scheduler(host.store.begin, [made.keep]).round()


def leased(host: HostWorld) -> list[str]:
    with host.store.begin() as tx:
        outbox = Outbox(host.clock)
        found = [outbox.lease(tx, *names, seconds=60) for names in outbox.due(tx, limit=16)]
        return [due.row.id for due in found if due is not None]


def due_jobs(host: HostWorld) -> list[str]:
    with host.store.begin() as tx:
        jobs = Jobs(host.clock)
        found = [jobs.look(tx, *names) for names in jobs.due(tx, lambda _tenant: 0, limit=16)]
        return [row.id for row in found if row is not None]


@pytest.mark.parametrize("edit", ["DELETE FROM outbox_due", "UPDATE outbox_due SET due = 999999999999"])
def test_a_delivery_is_not_forgotten(host: HostWorld, edit: str) -> None:
    made = delivery(host)
    host.pen(edit)
    assert leased(host) == []
    mend(host)
    assert leased(host) == [made]


@pytest.mark.parametrize("edit", ["DELETE FROM jobs_due", "UPDATE jobs_due SET due = 999999999999"])
def test_a_job_is_not_forgotten(host: HostWorld, edit: str) -> None:
    made = job(host)
    host.pen(edit)
    assert due_jobs(host) == []
    mend(host)
    assert due_jobs(host) == [made]


def test_a_result_is_not_remembered_for_ever(host: HostWorld) -> None:
    who, idempotency = host.principal("app"), host.services.idempotency
    with host.store.begin() as tx:
        assert idempotency.claim(tx, who, "op", "key", b"digest") == Fresh()
        idempotency.finish(tx, who, "op", "key", b"result")
    host.pen("DELETE FROM idempotency_expiry")
    mend(host)
    host.clock.now += KEPT_SECONDS + 10
    with host.store.begin() as tx:
        idempotency.prune(tx)
    assert host.pen("SELECT COUNT(*) FROM idempotency WHERE tenant = 'acme'")[0][0] == 0


def test_a_delivery_that_is_done_or_not_due_is_not_sent_for_a_hint(host: HostWorld) -> None:
    made = delivery(host)
    assert leased(host) == [made]
    host.pen("UPDATE outbox_due SET due = 0")
    host.pen("INSERT INTO outbox_due (due, tenant, id) VALUES (0, 'acme', 'none')")
    assert leased(host) == []
    # What was put in is out of the way again, so that it holds up nobody.
    now = int(host.clock.now)
    assert host.pen("SELECT id FROM outbox_due WHERE due <= ?", now) == []


def test_a_job_that_is_not_due_does_not_run_for_a_hint(host: HostWorld) -> None:
    made = job(host)
    jobs = Jobs(host.clock)
    with host.store.begin() as tx:
        jobs.lease(tx, jobs.get(tx, "acme", made))
    host.pen("UPDATE jobs_due SET due = 0")
    assert due_jobs(host) == []
    assert host.pen("SELECT id FROM jobs_due WHERE due = 0") == []


def test_many_are_mended_page_by_page(host: HostWorld) -> None:
    with host.store.begin() as tx:
        outbox = Outbox(host.clock)
        for _ in range(MENDED_AT_ONCE + 5):
            outbox.add(tx, caller("app").as_function("d"), "f", TARGET, {"a": 1})
    host.pen("DELETE FROM outbox_due")
    mend(host)
    assert host.pen("SELECT COUNT(*) FROM outbox_due")[0][0] == MENDED_AT_ONCE + 5


def test_it_is_done_at_the_start_and_then_at_times(host: HostWorld) -> None:
    hints = Hints(host.monotonic, [(Outbox(host.clock).mend, 300.0)])
    mend(host, hints)
    made = delivery(host)
    host.pen("DELETE FROM outbox_due")
    mend(host, hints)
    assert leased(host) == []
    host.monotonic.now += 301
    mend(host, hints)
    assert leased(host) == [made]
