"""Grants given, taken back and listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller, Subject
from cloister_host.identity.records import PRINCIPALS
from cloister_host.operations import Operation
from cloister_host.policy.actions import check_action, check_grantable
from cloister_host.policy.acts import QUORUM_CHANGE
from cloister_host.policy.grants import GRANTS, Grant, Grants, grant_id
from cloister_host.policy.messages import (
    GrantInfo,
    GrantList,
    GrantListRequest,
    GrantRequest,
    OwnGrants,
    OwnGrantsRequest,
)
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Tx

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
            "grant.delete": Operation(GrantRequest, self.delete, effect=True),
            "grant.list": Operation(GrantListRequest, self.list, effect=False),
            "grant.mine": Operation(OwnGrantsRequest, self.mine, effect=False),
        }

    def create(self, caller: Caller, request: GrantRequest, tx: Tx) -> GrantInfo:
        """Give a grant; giving it again changes nothing.

        Raises:
            ConfigurationError: The principal does not exist, or this can never be granted to it.
            QuorumNeededError: Others have to approve it.
        """
        self._grants.require(tx, caller, "grant.manage", f"principal/{request.principal}")
        kind = self._kind(tx, caller.tenant, request.principal)
        try:
            check_grantable(request.action, request.resource, tenant=caller.tenant, kind=kind)
        except ConfigurationError:
            self._audit.refuse(tx, caller, act="grant.create", resource=f"principal/{request.principal}")
            raise
        row_id = grant_id(request.principal, request.action, request.resource)
        row = tx.get(GRANTS, caller.tenant, row_id)
        if row is None:
            self._quorum.require(
                tx,
                caller,
                _act(request.action),
                f"principal/{request.principal}",
                request_digest("grant.create", request),
                detail={"principal": request.principal, "action": request.action, "on": request.resource},
            )
            record = Grant(
                principal=request.principal,
                action=request.action,
                resource=request.resource,
                granted_by=caller.principal,
                created_at=int(self._clock()),
            )
            row = tx.insert(GRANTS, caller.tenant, row_id, record)
        self._record(tx, caller, "grant.create", request)
        return _info(row.record)

    def delete(self, caller: Caller, request: GrantRequest, tx: Tx) -> GrantRequest:
        """Take a grant back, at once.

        Raises:
            ConfigurationError: There is no such grant.
        """
        self._grants.require(tx, caller, "grant.manage", f"principal/{request.principal}")
        check_action(request.action)
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
            grants=[_info(row.record) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def mine(self, caller: Caller, request: OwnGrantsRequest, tx: Tx) -> OwnGrants:
        """Who the caller is and what it was granted; nobody needs a right to ask that about himself."""
        rows = tx.scan(
            GRANTS, caller.tenant, prefix=f"{caller.principal}|", after=request.after, limit=request.limit
        )
        self._audit.record(tx, caller, act="grant.mine", resource=f"principal/{caller.principal}")
        return OwnGrants(
            tenant=caller.tenant,
            principal=caller.principal,
            kind=caller.kind,
            grants=[_info(row.record) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def _kind(self, tx: Tx, tenant: str, principal: str) -> Subject:
        if principal.startswith(_FUNCTION_PREFIX):
            return "function"
        row = tx.get(PRINCIPALS, tenant, principal)
        if row is None:
            raise ConfigurationError("there is no such principal", hint="create the principal first")
        return row.record.kind

    def _record(self, tx: Tx, caller: Caller, act: str, request: GrantRequest) -> None:
        self._audit.record(
            tx,
            caller,
            act=act,
            resource=f"principal/{request.principal}",
            detail={"action": request.action, "on": request.resource},
        )


def _act(action: str) -> str:
    """What giving such a grant is, for the quorum. Taking one back never waits."""
    match action:
        case "approve":
            return QUORUM_CHANGE
        case "detokenize":
            return "grant.detokenize"
        case _:
            return "policy.change"


def _info(grant: Grant) -> GrantInfo:
    return msgspec.convert(grant, GrantInfo, from_attributes=True)
