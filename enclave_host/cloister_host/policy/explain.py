"""Why somebody may do something, or may not."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cloister.errors import ConfigurationError
from cloister_host.identity.caller import Caller, Subject
from cloister_host.policy.actions import check_action, forbidden_to
from cloister_host.policy.conditions import Facts, unmet
from cloister_host.policy.grants import GRANTS, Grant, Grants
from cloister_host.policy.messages import Considered, Explain, Explanation, GrantInfo
from cloister_host.policy.roles import roles_with
from cloister_host.store import Tx

__all__ = ["explain", "grant_info"]


def explain(
    grants: Grants, tx: Tx, tenant: str, request: Explain, *, kind: Subject, now: float
) -> Explanation:
    """Go through every grant that could have a say.

    Raises:
        ConfigurationError: There is no such action, or a group was asked about.
    """
    check_action(request.action)
    if request.principal.startswith("group:"):
        raise ConfigurationError("groups do not act, their members do", hint="ask about a member")
    who = Caller(
        tenant=tenant,
        principal=request.principal,
        kind=kind,
        correlation_id="",
        purpose=request.purpose,
        claims=request.claims,
    )
    facts = Facts(caller=who, now=now if request.at is None else request.at, digest=lambda: request.function)
    considered = [
        Considered(grant=grant_info(row.record), unmet=unmet(row.record.conditions, facts) or "")
        for row in grants.matching(tx, who, request.action, request.resource)
    ]
    considered += [
        Considered(grant=grant_info(grant), unmet="it is on another resource")
        for grant in _of_this_action(grants, tx, who, request.action)
        if grant_info(grant) not in [one.grant for one in considered]
    ]
    counts = [one.grant for one in considered if not one.unmet]
    if forbidden_to(kind, request.action):
        return Explanation(
            allowed=False,
            because=f"{request.action} is never allowed to a principal of kind {kind}, whatever is granted",
            considered=considered,
        )
    if counts:
        first = counts[0]
        because = f"{first.principal} is granted {first.action} on {first.resource}"
    elif considered:
        because = f"no grant counts: {considered[0].unmet}"
    else:
        because = f"nothing grants {request.action} to {request.principal} or a group of it"
    return Explanation(allowed=bool(counts), because=because, considered=considered)


def grant_info(grant: Grant) -> GrantInfo:
    """A grant as it is shown."""
    return msgspec.convert(grant, GrantInfo, from_attributes=True)


def _of_this_action(grants: Grants, tx: Tx, who: Caller, action: str) -> Iterator[Grant]:
    """Grants of the action, or a role with it, on whatever resource."""
    for subject in grants.subjects(tx, who):
        for named in (action, *roles_with(action)):
            for row in tx.scan(GRANTS, who.tenant, prefix=f"{subject}|{named}|"):
                yield row.record
