"""Entries become leaves of a signed tree, and whoever has a pen in the database is found out (PROTOCOL 8)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister import jose
from cloister.errors import UnavailableError
from cloister.receipts.head import TreeHead, verify_head_under
from cloister.receipts.merkle import EMPTY_ROOT, Fold, verify_consistency, verify_inclusion
from cloister_host.audit import Event, Log
from cloister_host.audit.tree import Tree
from cloister_host.services import Services, build_services
from cloister_host.store import TamperedError
from support.host_world import HostWorld


def fill(host: HostWorld, count: int, *, sequence: bool = True) -> None:
    with host.store.begin() as tx:
        events = [Event(resource=f"key/{number}") for number in range(count)]
        host.services.audit.record_many(tx, host.admin, act="act", events=events)
    if sequence:
        host.services.log.sequence()


def head(host: HostWorld) -> TreeHead:
    [[token]] = host.pen("SELECT token FROM log_heads")
    return verify_head_under(token, key=host.root.log_key.public(), deployment=host.root.deployment)


def replica(host: HostWorld) -> Services:
    """A host that starts over the same database, with no memory."""
    return build_services(host.second_store(), host.root, host.clock)


def stored_leaves(host: HostWorld) -> list[bytes]:
    rows = host.pen("SELECT salt, entry FROM audit WHERE position IS NOT NULL ORDER BY position")
    return [
        hashlib.sha256(b"\x00" + hashlib.sha256(salt + entry.encode()).digest()).digest()
        for salt, entry in rows
    ]


def brute_root(host: HostWorld) -> bytes:
    fold = Fold()
    for leaf in stored_leaves(host):
        fold.add(0, leaf)
    return fold.root()


@pytest.mark.parametrize("counts", [(0,), (1,), (31, 1, 1), (32,), (33, 40), (1100,), (7, 500, 3, 1030)])
def test_the_signed_tree_is_the_tree_over_every_entry(host: HostWorld, counts: tuple[int, ...]) -> None:
    for count in counts:
        fill(host, count)
        found = head(host)
        assert found.size == len(host.pen("SELECT * FROM audit"))
        assert found.root == brute_root(host)
    with host.store.begin() as tx:
        host.services.audit.require_sequenced(tx, found.size)


def test_a_new_deployment_has_the_head_of_the_empty_tree(host: HostWorld) -> None:
    found = head(host)
    assert (found.size, found.root, found.previous) == (0, EMPTY_ROOT, "")


def test_heads_name_the_one_before_and_grow_in_time_even_if_the_clock_does_not(host: HostWorld) -> None:
    before = head(host)
    host.clock.now -= 1000
    fill(host, 3)
    after = head(host)
    assert after.previous == before.digest
    assert after.time == before.time + 1


def test_nothing_is_signed_when_nothing_was_recorded(host: HostWorld) -> None:
    fill(host, 3)
    before = head(host)
    assert host.services.log.sequence() == 0
    assert head(host).token == before.token


def test_every_entry_is_proven_at_every_size(host: HostWorld) -> None:
    fill(host, 70)
    log, audit = host.services.log, host.services.audit
    with host.store.begin() as tx:
        newest = log.head(tx)
        for entry in audit.placed(tx, "acme", start=0, end=newest.size, limit=1000):
            proof = log.inclusion(tx, entry)
            assert proof is not None
            assert proof.head.token == newest.token
            verify_inclusion(entry.recorded.leaf, proof.index, newest.size, proof.path, newest.root)


def test_trees_of_every_two_sizes_are_proven_consistent(host: HostWorld) -> None:
    heads = [head(host)]
    for count in (5, 1, 26, 70, 3):
        fill(host, count)
        heads.append(head(host))
    with host.store.begin() as tx:
        for i, old in enumerate(heads):
            for new in heads[i:]:
                path = host.services.log.consistency(tx, old.size, new.size)
                verify_consistency(old.size, new.size, first_root=old.root, second_root=new.root, path=path)


def test_an_entry_that_waits_has_no_proof_yet(host: HostWorld) -> None:
    with host.store.begin() as tx:
        written = host.services.audit.record(tx, host.admin, act="act", resource="x")
    with host.store.begin() as tx:
        entry = host.services.audit.find(tx, "acme", written.id)
        assert entry is not None
        assert host.services.log.inclusion(tx, entry) is None


def test_a_refusal_is_sequenced_too(host: HostWorld) -> None:
    def refuse() -> None:
        with host.store.begin() as tx:
            host.services.audit.refuse(tx, host.admin, act="seal", resource="key/ssn")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        refuse()
    host.services.log.sequence()
    assert head(host).size == len(host.pen("SELECT * FROM audit"))


def test_a_reply_says_the_same_length_of_the_log_whatever_its_size(host: HostWorld) -> None:
    with host.store.begin() as tx:
        lengths = {len(host.services.log.for_reply(tx, 0))}
    for count in (1, 30, 900):
        fill(host, count)
        with host.store.begin() as tx:
            size = head(host).size
            lengths |= {len(host.services.log.for_reply(tx, seen)) for seen in (0, 1, 3, size, size + 9)}
    assert lengths == {2048}


# --- several replicas ---


def test_replicas_sequence_each_others_entries_and_follow_each_others_heads(host: HostWorld) -> None:
    other = replica(host)
    other.log.open()
    fill(host, 40, sequence=False)
    assert other.log.sequence() >= 40
    host.services.log.sequence()
    with host.store.begin() as tx:
        assert host.services.log.head(tx).size == head(host).size
    fill(host, 5)
    with other.store.begin() as tx:
        # A client that saw more than this replica knows makes it look.
        assert other.log.head(tx, at_least=head(host).size).token == head(host).token


def test_replicas_at_once_give_every_entry_one_place(host: HostWorld, tmp_path: Path) -> None:
    worlds = [host.services, *(replica(host) for _ in range(3))]
    failures: list[BaseException] = []

    def act(services: Services) -> None:
        with services.store.begin() as tx:
            services.audit.record_many(
                tx, host.admin, act="act", events=[Event(resource="x"), Event(resource="y")]
            )

    def until_done(step: Callable[[], object]) -> None:
        # Where two write at once PostgreSQL undoes one of them; the host tries such a request again.
        while True:
            try:
                step()
            except UnavailableError as error:
                if not error.retryable:
                    raise
            else:
                return

    def work(services: Services) -> None:
        try:
            for _ in range(15):
                until_done(lambda: act(services))
                until_done(services.log.sequence)
        except BaseException as error:  # noqa: BLE001 (told to the test)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(services,)) for services in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = head(host)
    assert found.size == len(host.pen("SELECT * FROM audit")) >= 120
    assert found.root == brute_root(host)


# --- a pen in the database ---

TAMPERINGS: dict[str, str] = {
    "the newest entry deleted": "DELETE FROM audit WHERE position = (SELECT MAX(position) FROM audit)",
    "an older entry deleted": "DELETE FROM audit WHERE position = 4",
    "every entry deleted": "DELETE FROM audit",
    "a place taken back": "UPDATE audit SET position = NULL WHERE position = 4",
    "a place beyond the tree": "UPDATE audit SET position = 10000 WHERE position = 4",
    "the head deleted": "DELETE FROM log_heads",
    "the head cut": "UPDATE log_heads SET token = substr(token, 1, 100)",
    "the tree deleted": "DELETE FROM log_tiles",
    "the tree changed": "UPDATE log_tiles SET hashes = zeroblob(length(hashes))",
    "the tree cut": "UPDATE log_tiles SET hashes = substr(hashes, 1, 32)",
    "the tree as text": "UPDATE log_tiles SET hashes = 'text'",
}


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_start_finds_what_was_tampered_with(host: HostWorld, statement: str) -> None:
    fill(host, 40)
    host.pen(statement)
    started = replica(host)
    started.log.open()
    with pytest.raises(TamperedError):
        started.log.require_intact()


def test_a_start_finds_nothing_where_nothing_was(host: HostWorld) -> None:
    fill(host, 40)
    before = head(host)
    started = replica(host)
    started.log.open()
    started.log.require_intact()
    # Signed anew: whoever saw a later tree than this one learns of it from the time.
    assert (head(host).size, head(host).previous) == (before.size, before.digest)


def test_the_sequencer_finds_an_entry_deleted_before_it_had_a_place(host: HostWorld) -> None:
    fill(host, 3, sequence=False)
    host.pen("DELETE FROM audit WHERE id = (SELECT MAX(id) FROM audit)")
    with pytest.raises(TamperedError):
        host.services.log.sequence()
    with pytest.raises(TamperedError):
        host.services.log.require_intact()


def test_the_sequencer_finds_an_entry_written_by_somebody_else(host: HostWorld) -> None:
    host.pen(
        "INSERT INTO audit (id, tenant, entry, salt, mac) VALUES ('0', 'acme', '{}', ?, ?)",
        bytes(32),
        bytes(32),
    )
    with pytest.raises(TamperedError):
        host.services.log.sequence()


def test_the_sequencer_finds_an_entry_edited_before_it_had_a_place(host: HostWorld) -> None:
    fill(host, 1, sequence=False)
    host.pen("""UPDATE audit SET entry = replace(entry, '"done"', '"failed"')""")
    with pytest.raises(TamperedError):
        host.services.log.sequence()


def test_the_sequencer_finds_a_database_rolled_back_under_it(host: HostWorld) -> None:
    fill(host, 3)
    old = host.pen("SELECT token FROM log_heads")[0][0]
    fill(host, 3)
    host.pen("UPDATE log_heads SET token = ?", old)
    fill(host, 1, sequence=False)
    with pytest.raises(TamperedError):
        host.services.log.sequence()


def test_a_head_signed_by_another_key_is_not_gone_on_from(host: HostWorld) -> None:
    key = jose.generate_key("EdDSA", kid=host.root.log_key.kid)
    forger = Log(host.store, host.services.audit, key, host.clock)
    host.pen("DELETE FROM log_heads")
    with host.store.begin() as tx:
        forger.create(tx)
    with pytest.raises(TamperedError):
        host.services.log.sequence()


def test_a_changed_chain_of_a_tenant_is_found(host: HostWorld) -> None:
    fill(host, 3)
    host.pen("UPDATE log_tenants SET entries = entries - 1")
    with host.store.begin() as tx, pytest.raises(TamperedError):
        host.services.log.extent(tx, "acme")


@pytest.mark.parametrize("fail", ["append", "place"])
def test_a_sequencing_that_dies_leaves_nothing_and_is_done_again(
    host: HostWorld, monkeypatch: pytest.MonkeyPatch, fail: str
) -> None:
    before = head(host)
    fill(host, 5, sequence=False)

    def die(original: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **more: Any) -> None:
            original(*arguments, **more)
            raise RuntimeError("the machine lost power")

        return dying

    with monkeypatch.context() as patch:
        target = Tree if fail == "append" else type(host.services.audit)
        patch.setattr(target, fail, die(getattr(target, fail)))
        with pytest.raises(RuntimeError):
            host.services.log.sequence()
    assert head(host).token == before.token
    host.services.log.sequence()
    assert head(host).root == brute_root(host)
