"""What key versions have protected, counted in the store, so that all replicas share the limits.

A random 96-bit IV keeps the odds of a repetition under one key below 2**-32 for 2**32 messages (NIST SP
800-38D section 8.3). A data key seals 2**24 at most, in one process, and is leased against its version's
own limit before anything is sealed with it; what is never used of a lease is lost, not given twice.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from cloister.errors import LimitError
from cloister_host.keymanager.keyring import HeldKey
from cloister_host.store import Table, Tx
from cloister_host.store.canonical import digest

__all__ = ["GCM_MESSAGES", "Usage", "Used"]

GCM_MESSAGES: Final = 2**32
DEK_MESSAGES: Final = 2**24
_HOUR: Final = 3600


class Used(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content of a `key_usage` row, for one key version.

    Attributes:
        deks: Data keys that were issued or wrapped under it: what hangs on it for certain.
        messages: Messages that were leased to data keys, MACed or signed: the most it can have protected.
        rewrapped: Values that were moved from it to another version.
        opened_at: The last hour in which something under it was opened (epoch seconds).
    """

    deks: int = 0
    messages: int = 0
    rewrapped: int = 0
    opened_at: int = 0


class DekUsed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `dek_usage` row: messages under a data key, at most."""

    messages: int


KEY_USAGE: Final = Table("key_usage", Used, "usage of a key")
DEK_USAGE: Final = Table("dek_usage", DekUsed, "usage of a data key")


class Usage:
    """Counts, and refuses what would be too much."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], int] = {}

    def of(self, tx: Tx, tenant: str, kid: str) -> Used:
        """What is known of one version."""
        row = tx.get(KEY_USAGE, tenant, kid)
        return row.record if row else Used()

    def lease(self, tx: Tx, tenant: str, held: HeldKey, *, wanted: int, least: int = 1) -> int:
        """Set messages aside for one new data key; tells how many.

        Args:
            tx: The transaction.
            tenant: Whose key it is.
            held: The version that wraps the data key.
            wanted: As many as would be useful.
            least: Fewer are of no use.

        Raises:
            LimitError: The version has not so many left.
        """
        used = self.of(tx, tenant, held.kid)
        granted = wanted if held.max_messages is None else min(wanted, held.max_messages - used.messages)
        if granted < least:
            raise _used_up()
        self._put(tx, tenant, held.kid, replace(used, deks=used.deks + 1, messages=used.messages + granted))
        return granted

    def spend(self, tx: Tx, tenant: str, held: HeldKey, messages: int) -> None:
        """Count messages that are protected under the version itself; only where it has a limit.

        Raises:
            LimitError: The version has not so many left.
        """
        if held.max_messages is None:
            return
        used = self.of(tx, tenant, held.kid)
        if used.messages + messages > held.max_messages:
            raise _used_up()
        self._put(tx, tenant, held.kid, replace(used, messages=used.messages + messages))

    def note_opened(self, tx: Tx, tenant: str, kid: str, *, now: int) -> None:
        """Remember that something under a version was opened, to the hour."""
        hour = now - now % _HOUR
        if self._noted.get((tenant, kid), 0) >= hour:
            return
        used = self.of(tx, tenant, kid)
        if used.opened_at < hour:
            self._put(tx, tenant, kid, replace(used, opened_at=hour))
        # Only once it is sure to be written; a transaction that is undone notes it again.
        tx.on_rollback(lambda _aftermath: self._noted.pop((tenant, kid), None))
        self._noted[tenant, kid] = hour

    def note_rewrapped(self, tx: Tx, tenant: str, kid: str, values: int) -> None:
        """Count values that were moved away from a version."""
        used = self.of(tx, tenant, kid)
        self._put(tx, tenant, kid, replace(used, rewrapped=used.rewrapped + values))

    def keep_dek(self, tx: Tx, tenant: str, kid: str, encrypted_key: bytes, messages: int) -> None:
        """Let a data key that is kept under another version seal so many values again.

        Raises:
            LimitError: It would come near the bound of AES-GCM.
        """
        row_id = f"{kid}|{digest(encrypted_key)}"
        row = tx.get(DEK_USAGE, tenant, row_id)
        total = messages + (row.record.messages if row else DEK_MESSAGES)
        if total > GCM_MESSAGES:
            raise LimitError(
                "this data key has sealed all it ever may",
                hint="rewrap with the values' contexts: that draws a new one",
            )
        tx.put(DEK_USAGE, tenant, row_id, DekUsed(messages=total))

    def forget(self, tx: Tx, tenant: str, kid: str) -> None:
        """Drop what is known of a version."""
        tx.delete(KEY_USAGE, tenant, kid)

    def _put(self, tx: Tx, tenant: str, kid: str, used: Used) -> None:
        tx.put(KEY_USAGE, tenant, kid, used)


def _used_up() -> LimitError:
    return LimitError("this key version has protected all it may", hint="rotate the key, or ask for fewer")
