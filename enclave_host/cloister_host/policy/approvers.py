"""Who can approve: the holders of the right `approve` on an act."""

from __future__ import annotations

from collections.abc import Iterator

from cloister_host.identity.caller import Caller
from cloister_host.identity.records import PRINCIPALS
from cloister_host.policy.acts import ACTS
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx

__all__ = ["Approvers"]


class Approvers:
    """Asks who could approve, apart from any request of theirs."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def may(self, tx: Tx, tenant: str, principal: str, act: str) -> bool:
        """Whether this principal is active and has the right to approve the act."""
        row = tx.get(PRINCIPALS, tenant, principal)
        if row is None or row.record.state != "active":
            return False
        who = Caller(
            tenant=tenant,
            principal=principal,
            kind=row.record.kind,
            correlation_id="",
            groups=row.record.groups,
        )
        # Its conditions were held against the request in which it approved.
        return self._grants.ever_holds(tx, who, "approve", f"act/{act}")

    def is_one(self, tx: Tx, tenant: str, principal: str) -> bool:
        """Whether this principal may approve anything."""
        return any(self.may(tx, tenant, principal, act) for act in ACTS)

    def of(self, tx: Tx, tenant: str, act: str) -> Iterator[str]:
        """Everybody who may approve the act."""
        after = ""
        while rows := tx.scan(PRINCIPALS, tenant, after=after):
            yield from (row.id for row in rows if self.may(tx, tenant, row.id, act))
            after = rows[-1].id
