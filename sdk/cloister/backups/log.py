"""Recompute the audit log of a backup from its entries (SPEC section 4). Needs no key of the root."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from cloister.backups.manifest import Manifest
from cloister.backups.records import Record, Rows
from cloister.errors import LogError
from cloister.receipts.head import TreeHead
from cloister.receipts.merkle import Fold, leaf_hash

__all__ = ["CheckedLog", "LogCheck", "verify_log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLog:
    """What was found.

    Attributes:
        entries: Entries with a place in the log; their leaves have the root that the head signs.
        waiting: Entries that had no place yet.
        continues: Whether the log goes on from the head that was known; None if none was given, or the
            backup is older than it.
    """

    entries: int
    waiting: int
    continues: bool | None


class LogCheck:
    """Takes rows as they are read, so that a backup is opened once for everything.

    Args:
        manifest: Of the backup.
        known: A head of this log that was seen before.
    """

    def __init__(self, manifest: Manifest, known: TreeHead | None = None) -> None:
        self._head = manifest.head
        self._known = known
        self._tree = Fold()
        self._waiting = 0
        self._continues: bool | None = None
        self._compare()

    def take(self, record: Record) -> None:
        """Look at one record.

        Raises:
            LogError: Entries are missing or out of order, or the log is another than was seen before.
        """
        if not isinstance(record, Rows) or record.table.name != "audit":
            return
        try:
            at = [record.table.columns.index(name) for name in ("position", "salt", "entry")]
        except ValueError:
            raise LogError("the backup's log is malformed") from None
        for row in record.rows:
            position, salt, entry = (row[index] for index in at)
            if position is None:
                self._waiting += 1
                continue
            if position != self._tree.size or not isinstance(salt, bytes) or not isinstance(entry, str):
                raise LogError("entries of the log are missing from the backup, or out of order")
            self._tree.add(0, leaf_hash(salt, entry.encode("utf-8", "surrogatepass")))
            self._compare()

    def finish(self) -> CheckedLog:
        """Compare the whole with the signed head.

        Raises:
            LogError: The entries are not those of the log that was signed.
        """
        if self._tree.size != self._head.size or not hmac.compare_digest(self._tree.root(), self._head.root):
            raise LogError("the entries in the backup are not those of the log that was signed")
        return CheckedLog(entries=self._tree.size, waiting=self._waiting, continues=self._continues)

    def _compare(self) -> None:
        if self._known is None or self._tree.size != self._known.size:
            return
        if not hmac.compare_digest(self._tree.root(), self._known.root):
            raise LogError("the backup's log is another than the one that was seen before")
        self._continues = True


def verify_log(records: Iterable[Record], manifest: Manifest, *, known: TreeHead | None = None) -> CheckedLog:
    """Recompute the log from all records of a backup; see `LogCheck`."""
    check = LogCheck(manifest, known)
    for record in records:
        check.take(record)
    return check.finish()
