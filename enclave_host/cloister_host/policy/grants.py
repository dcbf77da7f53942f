"""The check every service makes before it acts."""

from __future__ import annotations

from typing import Final, NoReturn

import msgspec

from cloister.errors import DeniedError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.policy.actions import ACTIONS, forbidden_to, matching_resources
from cloister_host.store import Table, Tx

__all__ = ["GRANTS", "Grant", "Grants", "grant_id"]


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `grants` row; what it grants is in its id."""

    principal: str
    action: str
    resource: str
    granted_by: str
    created_at: int


GRANTS: Final = Table("grants", Grant, "grant")


def grant_id(principal: str, action: str, resource: str) -> str:
    """The primary key of a grant. Neither principals nor actions hold a bar, so it reads one way."""
    return f"{principal}|{action}|{resource}"


class Grants:
    """Deny by default: an act needs a grant that names the subject, the action and the resource."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        """Let the caller go on, or refuse.

        The refusal is recorded here, and stays recorded when it ends the transaction.

        Args:
            tx: The transaction of the act.
            caller: The principal, or the confidential function (`Caller.as_function`).
            action: One of `ACTIONS`.
            resource: `<noun>/<name>`, or `<noun>/*` for an act on all of them.

        Raises:
            DeniedError: There is no such grant, or none can be given to this kind of subject. It is
                the same whether the resource exists or not.
        """
        if not self.holds(tx, caller, action, resource):
            self.deny(tx, caller, action, resource)

    def holds(self, tx: Tx, caller: Caller, action: str, resource: str) -> bool:
        """Whether there is such a grant, for acts that several grants allow; arguments as in `require`."""
        assert action in ACTIONS, "an action of the program is missing from the table"
        # The kind is checked at use too: a grant may be older than the rule, or the database edited.
        if forbidden_to(caller.kind, action):
            return False
        ids = [grant_id(caller.principal, action, covered) for covered in matching_resources(resource)]
        return bool(tx.get_many(GRANTS, caller.tenant, ids))

    def deny(self, tx: Tx, caller: Caller, action: str, resource: str) -> NoReturn:
        """Refuse, whatever was granted; for rules that stand above grants.

        Raises:
            DeniedError: Always.
        """
        self._audit.refuse(tx, caller, act=action, resource=resource)
        raise DeniedError(
            f"{caller.principal} has no grant for {action} on this resource",
            hint="ask an administrator of the tenant for a grant",
            correlation_id=caller.correlation_id,
        )
