"""An entry per act, in the transaction of the act; and entries that cannot be changed unseen (PROTOCOL 8)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785

from cloister.errors import DeniedError, UnavailableError
from cloister.receipts.merkle import leaf_hash
from cloister_host.audit import Event
from cloister_host.store import TamperedError
from support.host_world import HostWorld, caller


def record(host: HostWorld, act: str = "act", **more: Any) -> None:
    with host.store.begin() as tx:
        host.services.audit.record(tx, host.admin, act=act, resource="key/ssn", **more)


def test_an_entry_says_who_did_what_and_how_it_ended(host: HostWorld) -> None:
    record(host, outcome="intent", detail={"kid": "ssn.1", "values": 3})
    [entry] = host.audited("act")
    assert (entry.tenant, entry.principal, entry.kind) == ("acme", "admin", "person")
    assert (entry.resource, entry.outcome, entry.correlation_id) == ("key/ssn", "intent", "request-1")
    assert entry.at == int(host.clock.now * 1000)
    assert entry.detail == {"kid": "ssn.1", "values": 3}


def test_a_leaf_is_the_salted_hash_of_the_canonical_entry(host: HostWorld) -> None:
    with host.store.begin() as tx:
        written = host.services.audit.record(tx, host.admin, act="act", resource="key/ssn")
    [[entry, salt]] = host.pen("SELECT entry, salt FROM audit WHERE id = ?", written.id)
    assert len(salt) == 32
    assert rfc8785.dumps(json.loads(entry)).decode() == entry
    leaf = hashlib.sha256(b"\x00" + hashlib.sha256(salt + entry.encode()).digest()).digest()
    assert leaf == written.leaf == leaf_hash(salt, entry.encode())


def test_equal_entries_have_different_salts(host: HostWorld) -> None:
    with host.store.begin() as tx:
        events = [Event(resource="key/ssn")] * 50
        host.services.audit.record_many(tx, host.admin, act="act", events=events)
    salts = host.pen("SELECT DISTINCT salt FROM audit")
    assert len(salts) == len(host.pen("SELECT * FROM audit"))


def test_entries_come_back_in_the_order_they_were_written(host: HostWorld) -> None:
    for number in range(30):
        record(host, f"act-{number}")
        if number % 7 == 0:
            host.clock.now += 1
    acts = [e.act for e in host.audited() if e.act.startswith("act-")]
    assert acts == [f"act-{number}" for number in range(30)]


def test_an_act_that_is_undone_leaves_no_entry(host: HostWorld) -> None:
    def fail() -> None:
        with host.store.begin() as tx:
            host.services.audit.record(tx, host.admin, act="act", resource="x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert host.audited("act") == []


def test_an_act_whose_entry_cannot_be_written_does_not_happen(host: HostWorld) -> None:
    host.pen("ALTER TABLE audit RENAME TO elsewhere")
    with pytest.raises(UnavailableError):
        host.call(host.admin, "key.create", key="ssn", purpose="seal")
    assert host.pen("SELECT * FROM keys") == []


def test_entries_await_their_place_in_the_log(host: HostWorld) -> None:
    assert host.pen("SELECT DISTINCT position FROM audit") == [(None,)]


EVERY_ACT: list[tuple[str, dict[str, Any]]] = [
    ("principal.create", {"principal": "app", "kind": "service"}),
    ("principal.list", {}),
    ("principal.rotate_key", {"principal": "app"}),
    ("grant.create", {"principal": "app", "action": "seal", "resource": "key/k"}),
    ("grant.list", {}),
    ("grant.delete", {"principal": "app", "action": "seal", "resource": "key/k"}),
    ("key.create", {"key": "k", "purpose": "seal-public-fips"}),
    ("key.rotate", {"key": "k"}),
    ("key.list", {}),
    ("key.public", {"key": "k"}),
    ("secret.put", {"secret": "s", "value": "a-secret-value"}),
    ("secret.list", {}),
    ("secret.delete", {"secret": "s"}),
    ("audit.list", {}),
    ("principal.disable", {"principal": "app"}),
]


def test_every_operation_writes_its_entry_and_no_value(host: HostWorld) -> None:
    for op, payload in EVERY_ACT:
        before = len(host.audited())
        host.call(host.admin, op, **payload)
        written = host.audited()[before:]
        assert [(e.act, e.outcome) for e in written] == [(op, "done")], op
    assert "a-secret-value" not in repr(host.pen("SELECT * FROM audit"))


# --- reading ---


def test_the_log_is_read_page_by_page_and_only_by_whoever_may(host: HostWorld) -> None:
    for number in range(5):
        record(host, f"act-{number}")
    first = host.call(host.admin, "audit.list", limit=3)
    second = host.call(host.admin, "audit.list", limit=1000, after=first.next)
    assert [e.id for e in first.entries] < [e.id for e in second.entries]
    assert second.next == ""
    who = host.principal("nearly", ("key.manage", "*"), ("grant.manage", "*"))
    with pytest.raises(DeniedError):
        host.call(who, "audit.list")


def test_a_tenant_reads_its_own_entries_alone(host: HostWorld) -> None:
    record(host, "ours")
    entries = host.call(host.other_admin, "audit.list").entries
    assert {e.tenant for e in entries} <= {"globex"}


# --- a pen in the database ---


@pytest.mark.parametrize(
    "change",
    [
        """entry = replace(entry, '"done"', '"refused"')""",
        """entry = replace(entry, 'admin', 'other')""",
        "salt = zeroblob(32)",
        "mac = zeroblob(32)",
        "mac = 'text'",
        "salt = 'text'",
        "id = '0' || id",
        "tenant = 'globex'",
    ],
)
def test_an_entry_with_one_column_changed_is_found(host: HostWorld, change: str) -> None:
    record(host)
    host.pen(f"UPDATE audit SET {change} WHERE tenant = 'acme' AND entry LIKE '%\"act\":\"act\"%'")
    with pytest.raises(TamperedError):
        host.audited(tenant="globex" if "globex" in change else "acme")


def test_an_entry_made_anew_with_another_salt_is_found(host: HostWorld) -> None:
    record(host)
    [[entry_id, entry]] = host.pen('SELECT id, entry FROM audit WHERE entry LIKE \'%"act":"act"%\'')
    forged = entry.replace('"done"', '"refused"')
    host.pen("UPDATE audit SET entry = ?, salt = ? WHERE id = ?", forged, bytes(32), entry_id)
    with pytest.raises(TamperedError):
        host.audited()


def test_a_function_is_named_with_whoever_it_runs_for(host: HostWorld) -> None:
    with host.store.begin() as tx:
        host.services.audit.record(
            tx, caller("app", kind="service").as_function("digest"), act="act", resource="x"
        )
    [entry] = host.audited("act")
    assert (entry.principal, entry.kind, entry.on_behalf_of) == ("function:digest", "function", "app")


# --- the state of a tenant ---


def test_the_last_committed_state_of_a_tenant_is_found_again(host: HostWorld) -> None:
    audit = host.services.audit
    with host.store.begin() as tx:
        assert audit.committed_state(tx, "acme") is None
        for counter, digest in ((1, "one"), (3, "three"), (2, "two")):
            audit.commit_state(tx, host.admin, counter=counter, digest=digest)
    with host.store.begin() as tx:
        assert audit.committed_state(tx, "acme") == (3, "three")
        assert audit.committed_state(tx, "globex") is None


def test_another_entry_does_not_pass_for_a_committed_state(host: HostWorld) -> None:
    record(host, detail={"counter": 9, "digest": "forged"})
    host.pen("UPDATE audit SET state = 9 WHERE entry LIKE '%forged%'")
    with host.store.begin() as tx, pytest.raises(TamperedError):
        host.services.audit.committed_state(tx, "acme")
