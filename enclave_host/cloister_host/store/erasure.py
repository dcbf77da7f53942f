"""Erase all that is stored of a tenant, and count what is left.

The tables are found in the migrations, so that a new one is erased too; what is kept is named here.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from sqlalchemy import text

from cloister_host.store.schema import tables
from cloister_host.store.tx import Tx

__all__ = ["KEPT", "erase", "remaining", "tables_of_tenants"]

_STATE: Final = frozenset({"tenant_states", "tenant_changes", "known_tenants"})
KEPT: Final = _STATE | {"tenants", "audit", "log_tenants"}
"""The tenants' own list, so that no name is given twice, and the log: names and digests, never values. And
that the tenant has no rows any more, so that nobody brings one back."""

_TENANT: Final = re.compile(r"\btenant \{text\}")


@cache
def tables_of_tenants() -> tuple[str, ...]:
    """Every table that holds rows of tenants, but for those that are kept."""
    return tuple(sorted(name for name, body in tables().items() if _TENANT.search(body) and name not in KEPT))


def erase(tx: Tx, tenant: str) -> int:
    """Delete every row of a tenant; tells how many there were."""
    protected = tx.protected_tables()
    return sum(
        tx.erase(name, tenant)
        if name in protected
        # S608: the names are those of the program's own migrations.
        else tx.execute(text(f"DELETE FROM {name} WHERE tenant = :tenant"), {"tenant": tenant}).rowcount  # noqa: S608
        for name in tables_of_tenants()
    )


def remaining(tx: Tx, tenant: str) -> dict[str, int]:
    """How many rows of a tenant are left, by table; the kept ones too."""
    counts = {
        name: tx.execute(
            text(f"SELECT COUNT(*) FROM {name} WHERE tenant = :tenant"),  # noqa: S608 (as above)
            {"tenant": tenant},
        ).scalar_one()
        for name in (*tables_of_tenants(), "audit")
    }
    return {name: count for name, count in sorted(counts.items()) if count}
