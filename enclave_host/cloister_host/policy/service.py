"""Grants given, taken back and listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller, Subject
from cloister_host.identity.records import GROUPS, PRINCIPALS
from cloister_host.operations import Operation, Request
from cloister_host.policy.actions import check_grantable
from cloister_host.policy.acts import QUORUM_CHANGE
from cloister_host.policy.conditions import Conditions, check_conditions
from cloister_host.policy.explain import explain, grant_info
from cloister_host.policy.grants import GRANTS, GROUP_PREFIX, Grant, Grants, grant_id
from cloister_host.policy.messages import (
    Explain,
    Explanation,
    GrantInfo,
    GrantList,
    GrantListRequest,
    GrantName,
    GrantRequest,
    OwnGrants,
    OwnGrantsRequest,
    RoleInfo,
    RoleList,
)
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.policy.roles import ROLES
from cloister_host.store import Row, Tx

__all__ = ["GrantService"]

_FUNCTION_PREFIX = "function:"


class GrantService:
    """Manages grants within the caller's tenant."""

    def __init__(self, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]) -> None:
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "grant.create": Operation(GrantRequest, self.create, effect=True),
            "grant.delete": Operation(GrantName, self.delete, effect=True),
            "grant.list": Operation(GrantListRequest, self.list, effect=False),
            "grant.mine": Operation(OwnGrantsRequest, self.mine, effect=False),
            "grant.explain": Operation(Explain, self.explain, effect=False),
            "role.list": Operation(Request, self.roles, effect=False),
        }

    def create(self, caller: Caller, request: GrantRequest, tx: Tx) -> GrantInfo:
        """Give a grant; giving it again changes nothing.

        Raises:
            ConfigurationError: The principal does not exist, this can never be granted to it, or it is
                granted under other conditions.
            QuorumNeededError: Others have to approve it.
        """
        self._grants.require(tx, caller, "grant.manage", f"principal/{request.principal}")
        kind = self._kind(tx, caller.tenant, request.principal)
        try:
            check_grantable(request.action, request.resource, tenant=caller.tenant, kind=kind)
            check_conditions(request.conditions)
        except ConfigurationError:
            self._audit.refuse(tx, caller, act="grant.create", resource=f"principal/{request.principal}")
            raise
        row_id = grant_id(request.principal, request.action, request.resource)
        row = tx.get(GRANTS, caller.tenant, row_id)
        if row is not None and row.record.conditions != request.conditions:
            raise ConfigurationError(
                "this is granted already, under other conditions", hint="take that grant back first"
            )
        if row is None:
            self._quorum.require(
                tx,
                caller,
                _act(request.action),
                f"principal/{request.principal}",
                request_digest("grant.create", request),
                detail={
                    "principal": request.principal,
                    "action": request.action,
                    "on": request.resource,
                    **_conditions(request.conditions),
                },
            )
            record = Grant(
                principal=request.principal,
                action=request.action,
                resource=request.resource,
                granted_by=caller.principal,
                created_at=int(self._clock()),
                conditions=request.conditions,
            )
            row = tx.insert(GRANTS, caller.tenant, row_id, record)
        self._record(tx, caller, "grant.create", request)
        return grant_info(row.record)

    def delete(self, caller: Caller, request: GrantName, tx: Tx) -> GrantName:
        """Take a grant back, at once.

        Raises:
            ConfigurationError: There is no such grant.
        """
        self._grants.require(tx, caller, "grant.manage", f"principal/{request.principal}")
        if not tx.delete(
            GRANTS, caller.tenant, grant_id(request.principal, request.action, request.resource)
        ):
            raise ConfigurationError("there is no such grant", hint="list the grants of this principal")
        self._record(tx, caller, "grant.delete", request)
        return request

    def list(self, caller: Caller, request: GrantListRequest, tx: Tx) -> GrantList:
        """List grants, of one principal or of all."""
        self._grants.require(tx, caller, "grant.manage", f"principal/{request.principal or '*'}")
        prefix = f"{request.principal}|" if request.principal else ""
        rows = tx.scan(GRANTS, caller.tenant, prefix=prefix, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="grant.list", resource=f"principal/{request.principal or '*'}")
        return GrantList(
            grants=[grant_info(row.record) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def mine(self, caller: Caller, request: OwnGrantsRequest, tx: Tx) -> OwnGrants:
        """Who the caller is and what it or its groups were granted; to ask that needs no right."""
        rows: list[Row[Grant]] = []
        for prefix in sorted(f"{subject}|" for subject in self._grants.subjects(tx, caller)):
            if (missing := request.limit - len(rows)) > 0:
                rows += tx.scan(GRANTS, caller.tenant, prefix=prefix, after=request.after, limit=missing)
        self._audit.record(tx, caller, act="grant.mine", resource=f"principal/{caller.principal}")
        return OwnGrants(
            tenant=caller.tenant,
            principal=caller.principal,
            kind=caller.kind,
            grants=[grant_info(row.record) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def explain(self, caller: Caller, request: Explain, tx: Tx) -> Explanation:
        """Say why somebody may do something, or may not: for who manages grants, or reads the log.

        Raises:
            ConfigurationError: There is no such principal or action.
        """
        resource = f"principal/{request.principal}"
        if not self._grants.holds(tx, caller, "audit.read", "audit/*"):
            self._grants.require(tx, caller, "grant.manage", resource)
        kind = self._kind(tx, caller.tenant, request.principal)
        if kind is None:
            raise ConfigurationError("groups do not act, their members do", hint="ask about a member")
        found = explain(self._grants, tx, caller.tenant, request, kind=kind, now=self._clock())
        self._audit.record(
            tx, caller, act="grant.explain", resource=resource, detail={"allowed": int(found.allowed)}
        )
        return found

    def roles(self, caller: Caller, _request: Request, tx: Tx) -> RoleList:
        """List the roles and what they hold; everybody may."""
        self._audit.record(tx, caller, act="role.list", resource="principal/*")
        return RoleList(roles=[RoleInfo(role=name, actions=list(actions)) for name, actions in ROLES.items()])

    def _kind(self, tx: Tx, tenant: str, principal: str) -> Subject | None:
        """What the subject of a grant is; None for a group."""
        if principal.startswith(_FUNCTION_PREFIX):
            return "function"
        if principal.startswith(GROUP_PREFIX):
            if tx.get(GROUPS, tenant, principal.removeprefix(GROUP_PREFIX)) is None:
                raise ConfigurationError("there is no such group", hint="create the group first")
            return None
        row = tx.get(PRINCIPALS, tenant, principal)
        if row is None:
            raise ConfigurationError("there is no such principal", hint="create the principal first")
        return row.record.kind

    def _record(self, tx: Tx, caller: Caller, act: str, request: GrantName) -> None:
        self._audit.record(
            tx,
            caller,
            act=act,
            resource=f"principal/{request.principal}",
            detail={"action": request.action, "on": request.resource},
        )


def _conditions(conditions: Conditions) -> dict[str, str]:
    """For the approvers: when the grant would count, if not always."""
    return {} if conditions == Conditions() else {"when": msgspec.json.encode(conditions).decode()}


def _act(action: str) -> str:
    """What giving such a grant is, for the quorum. Taking one back never waits."""
    match action:
        case "approve":
            return QUORUM_CHANGE
        case "detokenize":
            return "grant.detokenize"
        case _:
            return "policy.change"
