"""States that the log commits to: rows rolled back behind its back are found."""

from __future__ import annotations

import pytest

from cloister_host.audit.states import COMMIT_SECONDS, StateCommitter
from cloister_host.services import build_services
from cloister_host.store import Store
from cloister_host.store.anchors import RolledBackError
from support.host_world import HostWorld

LOG = frozenset({"audit", "log_tiles", "log_heads", "log_tenants", "migrations"})


def committer(host: HostWorld, store: Store | None = None) -> StateCommitter:
    """Of a host that has read its store."""
    (store or host.store).verify()
    return StateCommitter(store or host.store, host.services.audit, host.monotonic)


def started(host: HostWorld) -> StateCommitter:
    """Of a host that has just started."""
    store = host.second_store()
    store.verify()
    services = build_services(store, host.root, host.clock)
    return StateCommitter(store, services.audit, host.monotonic)


def test_rows_rolled_back_without_their_log_are_found_at_the_start(host: HostWorld) -> None:
    host.principal("app", ("key.read", "key/*"))
    before = {table: rows for table, rows in host.copy().items() if table not in LOG}
    host.call(host.admin, "grant.delete", principal="app", action="key.read", resource="key/*")
    committer(host).commit()
    started(host).check()
    host.put_back(before)
    with pytest.raises(RolledBackError):
        started(host).check()


def test_rows_forked_at_the_same_counter_are_found(host: HostWorld) -> None:
    host.principal("app")
    before = {table: rows for table, rows in host.copy().items() if table not in LOG}
    host.call(host.admin, "principal.create", principal="one", kind="service")
    committer(host).commit()
    host.put_back(before)
    fork = host.second_store()
    services = build_services(fork, host.root, host.clock)
    operation = services.operations()["principal.create"]
    with fork.begin() as tx:
        operation.handler(host.admin, operation.parse(b'{"principal": "two", "kind": "service"}'), tx)
    with pytest.raises(RolledBackError):
        started(host).check()


def test_what_went_on_after_the_commitment_is_accepted(host: HostWorld) -> None:
    committer(host).commit()
    host.principal("app")
    started(host).check()


def test_each_state_is_committed_to_once_and_in_its_time(host: HostWorld) -> None:
    states = committer(host)
    states.commit_due()
    assert host.audited("state.commit") == []
    host.monotonic.now += COMMIT_SECONDS + 1
    states.commit_due()
    states.commit()
    assert len(host.audited("state.commit")) == 1
    assert len(host.audited("state.commit", tenant="system")) == 1
    host.principal("app")
    states.commit()
    first, second = (entry.detail["digest"] for entry in host.audited("state.commit"))
    assert first != second


def test_an_entry_that_was_changed_is_for_the_log_to_find(host: HostWorld) -> None:
    committer(host).commit()
    host.pen("UPDATE audit SET salt = zeroblob(32) WHERE state IS NOT NULL")
    started(host).check()
