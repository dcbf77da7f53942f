"""The check every service makes before it acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import msgspec

from cloister.errors import DeniedError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.identity.records import PRINCIPALS
from cloister_host.identity.steady import SteadyClock
from cloister_host.policy.actions import ACTIONS, forbidden_to, matching_resources
from cloister_host.policy.conditions import Conditions, Facts, has_ended, unmet
from cloister_host.policy.roles import roles_with
from cloister_host.store import Row, Table, Tx

__all__ = ["GRANTS", "GROUP_PREFIX", "Grant", "Grants", "grant_id"]

GROUP_PREFIX: Final = "group:"


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `grants` row; what it grants is in its id.

    Attributes:
        principal: A principal, `group:<name>`, or `function:<digest>`.
        action: An action, or `role:<name>` for all that the role holds.
        conditions: When it counts.
    """

    principal: str
    action: str
    resource: str
    granted_by: str
    created_at: int
    conditions: Conditions = Conditions()


GRANTS: Final = Table("grants", Grant, "grant")


def grant_id(principal: str, action: str, resource: str) -> str:
    """The primary key of a grant. Neither principals nor actions hold a bar, so it reads one way."""
    return f"{principal}|{action}|{resource}"


class Grants:
    """Deny by default: an act needs a grant that names the subject, the action and the resource.

    Args:
        clock: Epoch seconds; a grant that has ended stays so if it is set back.
    """

    def __init__(self, audit: Audit, clock: Callable[[], float]) -> None:
        self._audit = audit
        self._now = SteadyClock(clock)

    def require(
        self, tx: Tx, caller: Caller, action: str, resource: str, *, digest: Callable[[], str] = str
    ) -> None:
        """Let the caller go on, or refuse.

        The refusal is recorded here, and stays recorded when it ends the transaction.

        Args:
            tx: The transaction of the act.
            caller: The principal, or the confidential function (`Caller.as_function`).
            action: One of `ACTIONS`.
            resource: `<noun>/<name>`, or `<noun>/*` for an act on all of them.
            digest: Finds the digest of the function to be invoked; asked only if a condition needs it.

        Raises:
            DeniedError: There is no such grant, its conditions do not hold, or none can be given to this
                kind of subject. It is the same whether the resource exists or not.
        """
        if not self.holds(tx, caller, action, resource, digest=digest):
            self.deny(tx, caller, action, resource)

    def holds(
        self, tx: Tx, caller: Caller, action: str, resource: str, *, digest: Callable[[], str] = str
    ) -> bool:
        """Whether there is such a grant, for acts that several grants allow; arguments as in `require`."""
        # The kind is checked at use too: a grant may be older than the rule, or the database edited.
        if forbidden_to(caller.kind, action):
            return False
        facts = Facts(caller=caller, now=self._now(), digest=digest)
        return any(
            unmet(row.record.conditions, facts) is None for row in self.matching(tx, caller, action, resource)
        )

    def ever_holds(self, tx: Tx, caller: Caller, action: str, resource: str) -> bool:
        """Whether there is such a grant that has not ended, whatever its other conditions."""
        if forbidden_to(caller.kind, action):
            return False
        found, now = self.matching(tx, caller, action, resource), self._now()
        return any(not has_ended(row.record.conditions, now) for row in found)

    def matching(self, tx: Tx, caller: Caller, action: str, resource: str) -> Sequence[Row[Grant]]:
        """The grants that name the caller or its group, the action or a role with it, and the resource."""
        assert action in ACTIONS, "an action of the program is missing from the table"
        ids = [
            grant_id(subject, named, covered)
            for subject in self.subjects(tx, caller)
            for named in (action, *roles_with(action))
            for covered in matching_resources(resource)
        ]
        return list(tx.get_many(GRANTS, caller.tenant, ids).values())

    def subjects(self, tx: Tx, caller: Caller) -> tuple[str, ...]:
        """The names under which a caller is granted something."""
        if caller.kind == "function":
            return (caller.principal,)
        groups = caller.groups
        if groups is None:
            row = tx.get(PRINCIPALS, caller.tenant, caller.principal)
            groups = row.record.groups if row else ()
        return (caller.principal, *(f"{GROUP_PREFIX}{name}" for name in groups))

    def deny(self, tx: Tx, caller: Caller, action: str, resource: str) -> NoReturn:
        """Refuse, whatever was granted; for rules that stand above grants.

        Raises:
            DeniedError: Always.
        """
        self._audit.refuse(tx, caller, act=action, resource=resource)
        raise DeniedError(
            f"{caller.principal} has no grant for {action} on this resource",
            hint="an administrator can see why: `cloister grant explain`",
            correlation_id=caller.correlation_id,
        )
