"""Restoring: all or nothing, elsewhere, once, and never older than what is known without somebody's word."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister import jose
from cloister.backups import Backup
from cloister.errors import CloisterError, ConfigurationError, LogError, OpenError
from cloister.function.egress import Delivery
from cloister_host.app import accept_store
from cloister_host.attester.settings import AttesterSettings
from cloister_host.backups.records import incarnation
from cloister_host.backups.restore import restore
from cloister_host.deliveries.outbox import OUTBOX, Outbox
from cloister_host.functions.jobs.records import Jobs
from cloister_host.functions.messages import Invoke
from cloister_host.guarding import guardian_of
from cloister_host.store import Tx
from cloister_host.store.anchors import RolledBackError
from cloister_host.store.database import Session
from cloister_host.store.idempotency import Done
from cloister_host.store.replay import ReplayError
from cloister_host.store.store import SupersededError
from support.backups import BACKUP_KEY
from support.faults import CrashError
from support.host_world import caller
from unit.host.backups.conftest import Deployment, Machines

KEPT = ("principals", "grants", "api_keys", "tenant_keys", "keys", "key_versions", "secret_versions", "vault")


def filled(machines: Machines, anchor: Path | None = None) -> Deployment:
    first = machines.deployment(anchor=anchor)
    world = first.world()
    world.principal("app", ("key.read", "key/*"))
    world.call(world.admin, "key.create", key="ssn", purpose="seal")
    world.call(world.admin, "secret.put", secret="s", value="a-value")
    world.services.log.open()
    world.services.log.sequence()
    return first


def test_a_deployment_goes_on_elsewhere(machines: Machines) -> None:
    first = filled(machines)
    raw = first.backup()
    second = machines.new("second", like=first)
    done = second.restore(raw)
    assert (done.incarnation, done.again) == (1, False)
    assert second.rows(*KEPT) == first.rows(*KEPT)
    world = second.world()
    world.services.log.open()
    world.services.log.sequence()
    assert world.services.log.failure == ""
    assert world.store.verify().keys() == {"", "system", "acme"}
    [entry] = world.audited("deployment.restore", tenant="system")
    assert entry.resource == f"backup/{done.backup}"
    # What was secret opens there.
    version = world.call(world.admin, "key.rotate", key="ssn")
    assert version.kid == "ssn.2"


def test_from_one_database_to_the_other_and_back(machines: Machines) -> None:
    first = filled(machines)
    second = machines.new("sqlite-second", like=first)
    second.restore(first.backup())
    third = machines.new("third", like=first)
    done = third.restore(second.backup())
    assert done.incarnation == 2
    assert third.rows(*KEPT) == second.rows(*KEPT) == first.rows(*KEPT)


def test_it_can_be_asked_for_again(machines: Machines) -> None:
    first = filled(machines)
    raw = first.backup()
    second = machines.new("second", like=first)
    done = second.restore(raw)
    before = second.rows("audit", "incarnations", "tenant_states")
    again = second.restore(raw)
    assert again.again
    assert again.incarnation == done.incarnation
    assert second.rows("audit", "incarnations", "tenant_states") == before


def test_nothing_is_overwritten(machines: Machines) -> None:
    first = filled(machines)
    raw = first.backup()
    before = first.rows(*KEPT)
    with pytest.raises(ConfigurationError, match="not empty"):
        first.restore(raw)
    second = machines.new("second", like=first)
    second.restore(first.backup())
    with pytest.raises(ConfigurationError, match="not empty"):
        second.restore(raw)
    assert first.rows(*KEPT) == before


def _crash_at(patch: pytest.MonkeyPatch, step: int) -> list[int]:
    """Die at one statement that writes."""
    count = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == step:
                raise CrashError
            return real(*arguments, **named)

        return write

    patch.setattr(Session, "execute_many", counted(Session.execute_many))
    for name in ("_write", "execute"):
        patch.setattr(Tx, name, counted(getattr(Tx, name)))
    return count


def test_a_restore_that_dies_leaves_an_empty_store(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = filled(machines)
    raw = first.backup()
    second = machines.new("second", like=first)
    step, done = 1, None
    while done is None:
        with monkeypatch.context() as patch:
            _crash_at(patch, step)
            with contextlib.suppress(CrashError):
                done = second.restore(raw)
        # PostgreSQL takes a second for each; every statement is tried where that is cheap.
        step += 9 if second.settings.database.startswith("postgresql") else 1
    # Each crash before left a store that the next attempt found empty.
    assert step > 20
    assert not done.again
    assert second.rows(*KEPT) == first.rows(*KEPT)


def test_a_backup_needs_the_root_key_it_was_taken_under(machines: Machines) -> None:
    raw = filled(machines).backup()
    stranger = machines.new("stranger")
    with pytest.raises(CloisterError):
        stranger.restore(raw)
    (stranger.settings.unseal_key).write_bytes(os.urandom(32))
    stranger.settings.unseal_key.chmod(0o600)
    with pytest.raises(CloisterError):
        stranger.restore(raw)


def test_another_backup_key_opens_nothing(machines: Machines) -> None:
    first = filled(machines)
    second = machines.new("second", like=first)
    other = jose.generate_key("HPKE-10-KE", kid="backup.1")
    with pytest.raises(OpenError):
        restore(second.settings, io.BytesIO(first.backup()), key=other, clock=second.clock)


def test_a_changed_backup_is_not_restored(machines: Machines) -> None:
    first = filled(machines)
    raw = bytearray(first.backup())
    second = machines.new("second", like=first)
    raw[len(raw) // 3] ^= 1
    with pytest.raises(OpenError):
        second.restore(bytes(raw))
    with pytest.raises(OpenError):
        second.restore(bytes(raw[:-3]))


def test_a_clock_behind_the_backup_is_refused(machines: Machines) -> None:
    first = filled(machines)
    raw = first.backup()
    second = machines.new("second", like=first)
    machines.clock.now -= 10
    with pytest.raises(ConfigurationError, match="clock"):
        second.restore(raw)


# --- rollback ---


def test_a_backup_older_than_the_anchor_needs_somebodys_word(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    anchor = tmp_path / "elsewhere" / "anchor"
    first = filled(machines, anchor)
    raw = first.backup()
    world = first.world()
    world.call(world.admin, "grant.delete", principal="app", action="key.read", resource="key/*")
    world.store.verify()
    guardian_of(first.settings, world.store, world.root.row_keys()).anchor_now()
    second = machines.new("second", like=first, anchor=anchor)
    with pytest.raises(RolledBackError) as refused:
        second.restore(raw)
    backup = Backup(io.BytesIO(raw), deployment=None).manifest.id
    assert backup in refused.value.hint
    with pytest.raises(RolledBackError):
        second.restore(raw, accept_rollback="A" * 22)
    second.restore(raw, accept_rollback=backup)
    world = second.world()
    [entry] = world.audited("deployment.restore", tenant="system")
    assert entry.detail["rolled_back_against"] == "the anchor"
    guardian_of(second.settings, world.store, world.root.row_keys()).check()


def test_a_backup_older_than_a_head_that_was_seen_needs_somebodys_word(machines: Machines) -> None:
    first = filled(machines)
    raw = first.backup()
    world = first.world()
    world.services.log.open()
    world.services.log.sequence()
    with world.store.begin() as tx:
        head = world.services.log.head(tx)
    second = machines.new("second", like=first)
    with pytest.raises(RolledBackError):
        second.restore(raw, known=head)
    manifest = Backup(io.BytesIO(raw), deployment=None).manifest
    forged = type(head)(
        deployment=head.deployment, size=manifest.head.size, root=bytes(32), time=1, previous="", token="x"
    )
    with pytest.raises(LogError):
        second.restore(raw, known=forged, accept_rollback=manifest.id)
    assert second.restore(raw, known=head, accept_rollback=manifest.id).incarnation == 1


# --- two hosts of one deployment ---


def test_the_host_before_stops_acting_once_the_anchor_is_anothers(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    anchor = tmp_path / "elsewhere" / "anchor"
    first = filled(machines, anchor)
    old = first.world()
    old.store.verify()
    guardian = guardian_of(first.settings, old.store, old.root.row_keys())
    guardian.anchor_now()
    second = machines.new("second", like=first, anchor=anchor)
    second.restore(first.backup())
    with pytest.raises(SupersededError):
        guardian.anchor_now()
    with pytest.raises(SupersededError):
        guardian_of(first.settings, old.store, old.root.row_keys()).check()
    old.store.supersede()
    with pytest.raises(SupersededError):
        old.principal("late")
    # The anchor is still the new one's.
    new = second.world()
    new.store.verify()
    guardian_of(second.settings, new.store, new.root.row_keys()).check()
    # Unless somebody says that the old one is the deployment.
    accept_store(first.settings, clock=machines.clock)
    with pytest.raises(SupersededError):
        guardian_of(second.settings, new.store, new.root.row_keys()).check()


def test_two_restores_of_one_backup_are_two_incarnations(machines: Machines, tmp_path: Path) -> None:
    first = filled(machines)
    raw = first.backup()
    names = set()
    for name in ("second", "third"):
        other = machines.new(name, like=first)
        other.restore(raw)
        with other.world().store.begin() as tx:
            names.add(incarnation(tx).name)
    assert len(names) == 2


def test_the_settings_of_a_restore_name_the_provider(machines: Machines) -> None:
    first = filled(machines)
    raw = first.backup()
    second = machines.new("second", like=first)
    settings = type(second.settings)(
        state=second.settings.state,
        database=second.settings.database,
        attester=AttesterSettings(name="simulated"),
        unseal="shamir",
    )
    with pytest.raises(CloisterError):
        restore(settings, io.BytesIO(raw), key=BACKUP_KEY, clock=second.clock)
    assert second.restore(raw).incarnation == 1


# --- what was under way ---


def test_what_was_under_way_waits_for_a_person(machines: Machines) -> None:
    first = filled(machines)
    world = first.world()
    function = caller("app").as_function("digest")
    target = Delivery(url="https://partner.example", path="/in")
    jobs = Jobs(machines.clock)
    with world.store.begin() as tx:
        delivery = Outbox(machines.clock).add(tx, function, "f", target, {"pin": "token"})
        request = Invoke(function="f@digest")
        outside = jobs.add(tx, caller("app"), request, digest="d", repeatable=False).id
        inside = jobs.add(tx, caller("app"), request, digest="d", repeatable=True).id
    second = machines.new("second", like=first)
    done = second.restore(first.backup())
    assert (done.held, done.lost) == (1, 1)
    world = second.world()
    outbox = Outbox(machines.clock)
    with world.store.begin() as tx:
        assert outbox.due(tx, limit=10) == []
        row = tx.get(OUTBOX, "acme", delivery)
        assert row is not None
        assert (row.record.state, row.record.error) == ("dead", "restored")
        assert jobs.get(tx, "acme", outside).record.state == "lost"
        assert jobs.get(tx, "acme", inside).record.state == "waiting"
        # Under the same id, so that a receiver who has it knows it.
        outbox.replay(tx, "acme", delivery)
        due = outbox.lease(tx, "acme", delivery, seconds=60)
        assert due is not None
        assert due.row.id == delivery
    [entry] = [entry for entry in world.audited("deliver") if entry.outcome == "unknown"]
    assert entry.detail["delivery"] == delivery


def test_budgets_replays_and_idempotency_keys_come_along(machines: Machines) -> None:
    first = filled(machines)
    world = first.world()
    with world.store.begin() as tx:
        world.services.replay.begin(tx, "jti", b"d" * 32, int(machines.clock()) + 300)
        world.services.idempotency.claim(tx, caller("app"), "op", "key", b"digest")
        world.services.idempotency.finish(tx, caller("app"), "op", "key", b"result")
    second = machines.new("second", like=first)
    second.restore(first.backup())
    restored = second.world()
    with restored.store.begin() as tx:
        done = restored.services.idempotency.claim(tx, caller("app"), "op", "key", b"digest")
        assert done == Done(b"result")
    with pytest.raises(ReplayError), restored.store.begin() as tx:
        restored.services.replay.begin(tx, "jti", b"d" * 32, int(machines.clock()) + 300)
