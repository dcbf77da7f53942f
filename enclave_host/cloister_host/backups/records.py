"""The protected rows about backups and restores, which stand in the system tenant."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cloister_host.identity.caller import SYSTEM_TENANT
from cloister_host.store import Table, Tx

__all__ = ["BACKUPS", "BackupRecord", "Incarnation", "incarnation", "known_backups", "write_incarnation"]


class BackupRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `backups` row; its id is the backup's.

    Attributes:
        key: RFC 7638 thumbprint of the key it is sealed to.
        generations: Of the root key, as they stood sealed in it.
        state: `begun`: whoever asked may have some of it; `gone`: somebody said that no copy is left.
        digest: Of the sealed object, once it was whole.
    """

    created_at: int
    by: str
    key: str
    generations: tuple[int, ...]
    state: Literal["begun", "complete", "gone"]
    digest: str = ""


class Incarnation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of an `incarnations` row: one restore.

    Attributes:
        number: 1 for the first.
        name: 128 random bits, so that two restores of one backup differ.
        backup: What was restored.
        restored_at: Epoch seconds.
        log_size: Of the backup's head.
    """

    number: int
    name: str
    backup: str
    restored_at: int
    log_size: int


BACKUPS: Final = Table("backups", BackupRecord, "backup")
_INCARNATIONS: Final = Table("incarnations", Incarnation, "restore")
_FIRST: Final = Incarnation(number=0, name="", backup="", restored_at=0, log_size=0)


def incarnation(tx: Tx) -> Incarnation:
    """The restore that this store comes from; number 0 if it comes from none."""
    # One row for each, under a number that counts down: the latest is the first.
    rows = tx.scan(_INCARNATIONS, SYSTEM_TENANT, limit=1)
    return rows[0].record if rows else _FIRST


def write_incarnation(tx: Tx, record: Incarnation) -> None:
    """Begin a new incarnation."""
    tx.insert(_INCARNATIONS, SYSTEM_TENANT, f"{2**32 - record.number:010}", record)


def known_backups(tx: Tx) -> dict[str, BackupRecord]:
    """Every backup of which copies may exist, by id."""
    found: dict[str, BackupRecord] = {}
    after = ""
    while rows := tx.scan(BACKUPS, SYSTEM_TENANT, after=after):
        found.update({row.id: row.record for row in rows if row.record.state != "gone"})
        after = rows[-1].id
    return found
