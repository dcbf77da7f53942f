"""Backups: whole, of one moment, and proven by themselves."""

from __future__ import annotations

import io
import os
from collections import Counter
from typing import Any

import pytest

from cloister import jose
from cloister.backups import Backup, Begin, End, Rows, verify_log
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    EvidenceError,
    LogError,
    OpenError,
    QuorumNeededError,
)
from cloister_host.keymanager.root import RootKey
from cloister_host.store import TamperedError
from cloister_host.store.database import migration_digests
from cloister_host.store.schema import tables
from support.backups import BACKUP_KEY, pieces, take, take_file
from support.host_world import HostWorld, caller


def rows_of(backup: Backup) -> dict[str, Counter[Any]]:
    found: dict[str, Counter[Any]] = {}
    for record in backup.records(BACKUP_KEY):
        if isinstance(record, Rows):
            rows = found.setdefault(record.table.name, Counter())
            rows.update(tuple(zip(record.table.columns, row, strict=True)) for row in record.rows)
    return found


def test_a_backup_has_every_row_of_every_table(host: HostWorld) -> None:
    host.principal("app", ("key.read", "key/*"))
    host.services.log.sequence()
    backup = take_file(host)
    backup.check_object()
    found = rows_of(backup)
    first, *_, last = backup.records(BACKUP_KEY)
    assert isinstance(first, Begin)
    assert first.migrations == migration_digests()
    assert isinstance(last, End)
    assert last.rows.keys() == tables().keys()
    for table, columns in host.tables().items():
        # What was written after the moment of the backup is about the backup itself.
        if table in {"migrations", "audit", "backups", "tenant_states", "tenant_changes"}:
            continue
        here = Counter(
            tuple(sorted(zip(columns, row, strict=True))) for row in host.pen(f"SELECT * FROM {table}")
        )
        assert found.get(table, Counter()) == here, table


def test_its_manifest_is_the_deployments_and_names_the_log(host: HostWorld) -> None:
    host.services.log.sequence()
    backup = take_file(host)
    manifest = backup.manifest
    assert manifest.deployment == host.root.deployment
    assert manifest.created_at == int(host.clock.now)
    assert manifest.key == jose.thumbprint(BACKUP_KEY)
    checked = verify_log(backup.records(BACKUP_KEY), manifest)
    assert checked.entries == manifest.head.size > 0
    # The entry that says that it is being taken.
    assert checked.waiting == 1


def test_a_head_that_was_seen_before_is_compared(host: HostWorld) -> None:
    host.services.log.sequence()
    early = take_file(host).manifest.head
    host.principal("app")
    host.services.log.sequence()
    backup = take_file(host)
    assert verify_log(backup.records(BACKUP_KEY), backup.manifest, known=early).continues is True
    other = RootKey.generate("test")
    forged = type(early)(
        deployment=early.deployment, size=early.size, root=bytes(32), time=1, previous="", token=early.token
    )
    assert other.deployment != early.deployment
    with pytest.raises(LogError):
        verify_log(backup.records(BACKUP_KEY), backup.manifest, known=forged)


def test_it_is_one_moment_whatever_is_written_meanwhile(host: HostWorld) -> None:
    stream = pieces(host)
    begun = next(stream)
    host.principal("late")  # nobody waits for the reader, and the reader sees none of it
    whole = begun + b"".join(stream)
    backup = Backup(io.BytesIO(whole), deployment=host.root.deployment)
    assert "late" not in repr(rows_of(backup)["principals"])
    assert "late" in repr(rows_of(take_file(host))["principals"])


def test_nothing_secret_of_the_root_is_in_it(host: HostWorld) -> None:
    host.call(host.admin, "secret.put", secret="s", value="a-value-to-look-for")
    backup = take_file(host)
    content = b"".join(
        repr(record).encode() + repr(getattr(record, "rows", "")).encode()
        for record in backup.records(BACKUP_KEY)
    )
    assert b"secret_versions" in content
    assert b"a-value-to-look-for" not in content


def test_without_the_backup_key_it_shows_nothing(host: HostWorld) -> None:
    raw = take(host)
    for name in (b"acme", b"globex", b"principals", b"grant"):
        assert name not in raw
    backup = Backup(io.BytesIO(raw), deployment=None)
    with pytest.raises(OpenError):
        next(backup.records(jose.generate_key("HPKE-10-KE", kid="backup.1")))


# --- what is changed ---


def test_a_backup_of_another_deployment_is_refused(host: HostWorld) -> None:
    raw = take(host)
    with pytest.raises(EvidenceError):
        Backup(io.BytesIO(raw), deployment=RootKey.generate("test").deployment)


@pytest.mark.parametrize("cut", [1, 12, 13, 400, 5000])
def test_a_backup_that_was_cut_off_is_none(host: HostWorld, cut: int) -> None:
    raw = take(host)
    with pytest.raises(CloisterError):
        Backup(io.BytesIO(raw[:-cut]), deployment=host.root.deployment)
    with pytest.raises(CloisterError):
        Backup(io.BytesIO(raw[cut:]), deployment=host.root.deployment)


def test_a_changed_byte_anywhere_is_found(host: HostWorld) -> None:
    raw = take(host)
    for place in {0, 100, len(raw) // 2, len(raw) - 600, len(raw) - 1, *os.urandom(8)}:
        changed = bytearray(raw)
        changed[place] ^= 1
        with pytest.raises(CloisterError):
            Backup(io.BytesIO(bytes(changed)), deployment=host.root.deployment).check_object()


def test_the_object_of_another_backup_is_found(host: HostWorld) -> None:
    first, second = take_file(host), take_file(host)
    objects = take(host)[: first.manifest.object_bytes]
    token = second.manifest.sign(host.root.deployment_key).encode()
    spliced = objects + token + len(token).to_bytes(4, "big") + b"clbkp\x00\x01\n"
    with pytest.raises(OpenError):
        Backup(io.BytesIO(spliced), deployment=host.root.deployment).check_object()


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE grants SET content = replace(content, 'admin', 'nobody')",
        "DELETE FROM principals WHERE tenant = 'globex'",
        "UPDATE tenant_states SET counter = counter + 1 WHERE tenant = 'acme'",
        "DELETE FROM tenant_states WHERE tenant = 'acme'",
        "DELETE FROM audit WHERE position = 1",
        "UPDATE audit SET position = 1000 WHERE position = 0",
        "UPDATE log_heads SET token = 'x'",
        "DELETE FROM log_heads",
        "DROP TABLE vault",
    ],
)
def test_a_store_that_was_tampered_with_gives_no_whole_backup(host: HostWorld, edit: str) -> None:
    host.services.log.sequence()
    host.pen(edit)
    with pytest.raises(TamperedError):
        take(host)


# --- who may ---


def test_only_who_may_takes_one(host: HostWorld) -> None:
    for who in (host.admin, caller("nobody", tenant="system")):
        with pytest.raises(DeniedError):
            next(pieces(host, who=who))
    with pytest.raises(ConfigurationError):
        host.grant("admin", "backup.create", "backup/*")


def test_it_can_be_put_under_quorum(host: HostWorld) -> None:
    host.call(host.operator, "principal.create", principal="second", kind="person")
    host.grant("second", "approve", "act/*", by=host.operator)
    host.call(host.operator, "quorum.set", act="backup.create", approvals=1, lifetime_seconds=3600)
    with pytest.raises(QuorumNeededError) as needed:
        next(pieces(host))
    second = caller("second", tenant="system")
    host.call(second, "proposal.approve", proposal=needed.value.proposal_id)
    # It is for this very key.
    other = jose.public_jwk(jose.generate_key("HPKE-10-KE", kid="other.1"))
    with pytest.raises(QuorumNeededError):
        next(pieces(host, key=other))
    assert take(host)
    with pytest.raises(QuorumNeededError):
        next(pieces(host))


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"kty": "oct"},
        BACKUP_KEY.to_jwk(),
        jose.public_jwk(jose.generate_key("EdDSA", kid="backup.1")),
        jose.public_jwk(jose.generate_key("HPKE-10-KE")),
        jose.public_jwk(jose.generate_key("HPKE-10-KE", kid="No Name")),
        {**jose.public_jwk(BACKUP_KEY), "extra": 1},
    ],
)
def test_it_is_sealed_to_a_public_key_with_a_name_and_to_nothing_else(host: HostWorld, key: Any) -> None:
    before = host.pen("SELECT COUNT(*) FROM audit")
    with pytest.raises(ConfigurationError):
        next(pieces(host, key=key))
    assert host.pen("SELECT COUNT(*) FROM audit") == before


# --- what is remembered ---


def test_backups_are_listed_and_declared_gone(host: HostWorld) -> None:
    manifest = take_file(host).manifest
    next(begun := pieces(host))
    begun.close()
    listed = {item.backup: item for item in host.call(host.operator, "backup.list").backups}
    assert listed.pop(manifest.id).state == "complete"
    [broken] = listed.values()
    assert broken.state == "begun"
    assert host.call(host.operator, "backup.forget", backup=manifest.id).state == "gone"
    with pytest.raises(ConfigurationError):
        host.call(host.operator, "backup.forget", backup="A" * 22)
    acts = [(entry.act, entry.outcome) for entry in host.audited(tenant="system")]
    assert ("backup.create", "intent") in acts
    assert ("backup.create", "done") in acts
    assert ("backup.forget", "done") in acts
