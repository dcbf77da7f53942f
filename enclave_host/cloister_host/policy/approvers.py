"""Who can approve, the holders of the right `approve` on an act, and what else makes a credential grave."""

from __future__ import annotations

from collections.abc import Iterator

from cloister_host.identity.caller import Caller
from cloister_host.identity.records import PRINCIPALS
from cloister_host.policy.actions import forbidden_to
from cloister_host.policy.acts import ACTS
from cloister_host.policy.grants import GRANTS, Grants, grant_id
from cloister_host.store import Tx

__all__ = ["Approvers"]


class Approvers:
    """Asks who could approve, apart from any request of theirs."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def may(self, tx: Tx, tenant: str, principal: str, act: str) -> bool:
        """Whether this principal is active and has the right to approve the act."""
        who = _active(tx, tenant, principal)
        # Its other conditions were held against the request in which it approved.
        return who is not None and self._grants.ever_holds(tx, who, "approve", f"act/{act}")

    def is_one(self, tx: Tx, tenant: str, principal: str) -> bool:
        """Whether this principal may approve anything."""
        return any(self.may(tx, tenant, principal, act) for act in ACTS)

    def sees_values(self, tx: Tx, tenant: str, principal: str) -> bool:
        """Whether this principal may see the values behind tokens of any policy."""
        who = _active(tx, tenant, principal)
        if who is None or forbidden_to(who.kind, "detokenize"):
            return False
        return any(
            tx.scan(GRANTS, tenant, prefix=grant_id(subject, "detokenize", ""), limit=1)
            for subject in self._grants.subjects(tx, who)
        )

    def of(self, tx: Tx, tenant: str, act: str) -> Iterator[str]:
        """Everybody who may approve the act."""
        after = ""
        while rows := tx.scan(PRINCIPALS, tenant, after=after):
            yield from (row.id for row in rows if self.may(tx, tenant, row.id, act))
            after = rows[-1].id


def _active(tx: Tx, tenant: str, principal: str) -> Caller | None:
    """A principal as it would act, unless it is none or disabled."""
    row = tx.get(PRINCIPALS, tenant, principal)
    if row is None or row.record.state != "active":
        return None
    return Caller(
        tenant=tenant,
        principal=principal,
        kind=row.record.kind,
        correlation_id="",
        groups=row.record.groups,
    )
