"""What functions log, kept for the tenant: sealed under its key, which the host never opens again for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Final

import msgspec

from cloister_host.functions.messages import LogEntry
from cloister_host.functions.registry import Resolved
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.manager import KeyManager
from cloister_host.store import Row, Table, Tx

__all__ = ["FunctionLogs"]

KEPT_SECONDS: Final = 7 * 86_400
_PRUNED_AT_ONCE: Final = 4


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `function_logs` row; its id is `name|time|unique`."""

    digest: str
    principal: str
    correlation_id: str
    at: int
    outcome: str
    sealed: str


LOGS: Final = Table("function_logs", LogRecord, "log entry")


class FunctionLogs:
    """Writes one entry an invocation that logged, and reads them.

    Args:
        keys: Seals.
        clock: Epoch seconds.
    """

    def __init__(self, keys: KeyManager, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        self._count = itertools.count()

    def add(self, tx: Tx, function: Caller, resolved: Resolved, text: str, *, outcome: str) -> None:
        """Keep what one invocation logged, and forget some that is older than a week.

        Args:
            tx: The transaction of the invocation's end, good or bad.
            function: The function, for whoever it ran.
            resolved: What ran; its manifest names the key.
            text: What it logged.
            outcome: Error code of the invocation, or `done`.
        """
        key = resolved.manifest.logs
        if key is None or not text:
            return
        now = self._clock()
        entry_id = f"{int(now * 1000):012x}{next(self._count) & 0xFFFF:04x}{os.urandom(4).hex()}"
        context = {"function": resolved.name, "entry": entry_id}
        sealed = self._keys.seal_for_output(tx, function, key, text, context)
        record = LogRecord(
            digest=resolved.digest,
            principal=function.on_behalf_of,
            correlation_id=function.correlation_id,
            at=int(now),
            outcome=outcome,
            sealed=str(sealed),
        )
        tx.insert(LOGS, function.tenant, f"{resolved.name}|{entry_id}", record)
        for row in tx.scan(LOGS, function.tenant, prefix=f"{resolved.name}|", limit=_PRUNED_AT_ONCE):
            if row.record.at < now - KEPT_SECONDS:
                tx.delete(LOGS, function.tenant, row.id)

    def read(self, tx: Tx, tenant: str, name: str, *, after: str, limit: int) -> list[LogEntry]:
        """Entries of a function, oldest first."""
        prefix = f"{name}|"
        found = tx.scan(LOGS, tenant, prefix=prefix, after=prefix + after, limit=limit)
        return [_entry(row) for row in found]


def _entry(row: Row[LogRecord]) -> LogEntry:
    record = row.record
    name, _, entry_id = row.id.partition("|")
    return LogEntry(
        entry=entry_id,
        function=name,
        digest=record.digest,
        principal=record.principal,
        correlation_id=record.correlation_id,
        at=record.at,
        outcome=record.outcome,
        sealed=record.sealed,
    )
