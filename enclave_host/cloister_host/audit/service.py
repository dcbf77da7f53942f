"""Reading the audit log through the API."""

from __future__ import annotations

from collections.abc import Mapping

from cloister_host.audit.audit import Audit
from cloister_host.audit.entry import Entry
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page, Result
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx

__all__ = ["AuditEntries", "AuditService"]


class AuditEntries(Result):
    """One page of the log; `next` continues it, and is empty at the end."""

    entries: list[Entry]
    next: str


class AuditService:
    """The log of the caller's own tenant."""

    def __init__(self, audit: Audit, grants: Grants) -> None:
        self._audit = audit
        self._grants = grants

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {"audit.list": Operation(Page, self.list, effect=False)}

    def list(self, caller: Caller, request: Page, tx: Tx) -> AuditEntries:
        """Read one page, oldest first."""
        self._grants.require(tx, caller, "audit.read", "audit/*")
        entries = self._audit.read(tx, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="audit.list", resource="audit/*", detail={"entries": len(entries)})
        return AuditEntries(entries=entries, next=entries[-1].id if len(entries) == request.limit else "")
