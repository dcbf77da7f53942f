"""What background work does about a row that was changed outside the host: skip it, tell of it, go on."""

from __future__ import annotations

import re
import secrets
from typing import Final

import structlog

from cloister_host.audit.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.store import TamperedError, Tx

__all__ = ["LOOKED_AT_AGAIN_SECONDS", "report_damage"]

log = structlog.get_logger(__name__)

LOOKED_AT_AGAIN_SECONDS: Final = 3600
"""Until then the row may have been restored; meanwhile it takes nobody's time."""

_HOST: Final = "host"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def report_damage(audit: Audit, tx: Tx, *, tenant: str, act: str, row_id: str, error: TamperedError) -> None:
    """Log and record that a row cannot be used; its name comes from the database, like the damage."""
    name = row_id if _ID.fullmatch(row_id) else "unreadable"
    log.error("row.tampered", table=error.table, row=name)
    caller = Caller(tenant=tenant, principal=_HOST, kind="service", correlation_id=secrets.token_hex(8))
    audit.record(
        tx,
        caller,
        act=act,
        resource=f"{error.table}/{name}",
        outcome="failed",
        detail={"error": "tampered"},
    )
