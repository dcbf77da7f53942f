"""What each tenant has in the log: how many leaves, and a chain over them in their order.

A leaf does not tell whose it is. The chain does: whoever lists a tenant's entries can be shown that none is
left out.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from cloister.receipts.export import EMPTY_CHAIN, extend_chain
from cloister_host.store import TamperedError, Tx
from cloister_host.store.rows import row_binding, row_mac

__all__ = ["TenantChains"]

_SELECT: Final = text("SELECT entries, chain, mac FROM log_tenants WHERE tenant = :tenant")
_WRITE: Final = text(
    "INSERT INTO log_tenants (tenant, entries, chain, mac) VALUES (:tenant, :entries, :chain, :mac)"
    " ON CONFLICT (tenant) DO UPDATE"
    " SET entries = excluded.entries, chain = excluded.chain, mac = excluded.mac"
)


class TenantChains:
    """The rows of `log_tenants`, each under a MAC."""

    def read(self, tx: Tx, tenant: str) -> tuple[int, bytes]:
        """How many leaves a tenant has, and the chain over them.

        Raises:
            TamperedError: The row is not one the host wrote.
        """
        row = tx.execute(_SELECT, {"tenant": tenant}).first()
        if row is None:
            return 0, EMPTY_CHAIN
        entries, chain, mac = tuple(row)
        if type(entries) is not int or not isinstance(chain, bytes) or not isinstance(mac, bytes):
            raise TamperedError("log_tenants")
        if not hmac.compare_digest(mac, _mac(tx, tenant, entries, chain)):
            raise TamperedError("log_tenants")
        return entries, chain

    def extend(self, tx: Tx, first: int, tenants: Sequence[str], leaves: Sequence[bytes]) -> None:
        """Add leaves with places from `first` on, each to the chain of its tenant."""
        chains = {tenant: self.read(tx, tenant) for tenant in dict.fromkeys(tenants)}
        for place, (tenant, leaf) in enumerate(zip(tenants, leaves, strict=True), start=first):
            entries, chain = chains[tenant]
            chains[tenant] = (entries + 1, extend_chain(chain, place, leaf))
        tx.execute_many(
            _WRITE,
            [
                {"tenant": tenant, "entries": n, "chain": chain, "mac": _mac(tx, tenant, n, chain)}
                for tenant, (n, chain) in chains.items()
            ],
        )


def _mac(tx: Tx, tenant: str, entries: int, chain: bytes) -> bytes:
    return row_mac(tx.keys, row_binding(tx.keys.deployment, tenant, "log_tenants", "", entries), chain)
