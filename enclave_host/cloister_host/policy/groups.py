"""Groups of principals, so that grants need not name everybody."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from cloister.errors import ConfigurationError, LimitError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.identity.records import GROUPS, PRINCIPALS, Group, Principal
from cloister_host.operations import Operation, Page
from cloister_host.policy.acts import QUORUM_CHANGE
from cloister_host.policy.grants import GRANTS, GROUP_PREFIX, Grants
from cloister_host.policy.messages import GroupInfo, GroupList, GroupMember, GroupName
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Row, Tx

__all__ = ["GroupService"]

MAX_GROUPS_OF_A_PRINCIPAL: Final = 16


class GroupService:
    """Manages the groups of the caller's tenant."""

    def __init__(self, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]) -> None:
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "group.create": Operation(GroupName, self.create, effect=True),
            "group.delete": Operation(GroupName, self.delete, effect=True),
            "group.add": Operation(GroupMember, self.add, effect=True),
            "group.remove": Operation(GroupMember, self.remove, effect=True),
            "group.list": Operation(Page, self.list, effect=False),
        }

    def create(self, caller: Caller, request: GroupName, tx: Tx) -> GroupName:
        """Create a group without members or grants.

        Raises:
            ExistsError: The name is taken.
        """
        resource = f"group/{request.group}"
        self._grants.require(tx, caller, "group.manage", resource)
        tx.insert(GROUPS, caller.tenant, request.group, Group(created_at=int(self._clock())))
        self._audit.record(tx, caller, act="group.create", resource=resource)
        return request

    def delete(self, caller: Caller, request: GroupName, tx: Tx) -> GroupName:
        """Delete a group with its memberships and its grants: a later one of the name has none of them.

        Raises:
            ConfigurationError: There is no such group.
        """
        resource = f"group/{request.group}"
        self._grants.require(tx, caller, "group.manage", resource)
        self._existing(tx, caller, request.group)
        for row in list(_principals(tx, caller.tenant)):
            if request.group in row.record.groups:
                self._leave(tx, row, request.group)
        while grants := tx.scan(GRANTS, caller.tenant, prefix=f"{GROUP_PREFIX}{request.group}|"):
            for grant in grants:
                tx.delete(GRANTS, caller.tenant, grant.id)
        tx.delete(GROUPS, caller.tenant, request.group)
        self._audit.record(tx, caller, act="group.delete", resource=resource)
        return request

    def add(self, caller: Caller, request: GroupMember, tx: Tx) -> GroupMember:
        """Make a principal a member; doing it again changes nothing.

        Raises:
            ConfigurationError: There is no such group or principal.
            LimitError: The principal is in too many groups.
            QuorumNeededError: Others have to approve it.
        """
        resource = f"group/{request.group}"
        self._grants.require(tx, caller, "group.manage", resource)
        self._existing(tx, caller, request.group)
        row = self._principal(tx, caller, request.principal)
        if request.group not in row.record.groups:
            if len(row.record.groups) >= MAX_GROUPS_OF_A_PRINCIPAL:
                raise LimitError(f"a principal is in at most {MAX_GROUPS_OF_A_PRINCIPAL} groups")
            self._quorum.require(
                tx,
                caller,
                self._act(tx, caller, request.group),
                resource,
                request_digest("group.add", request),
                detail={"principal": request.principal, "group": request.group},
            )
            groups = tuple(sorted({*row.record.groups, request.group}))
            tx.put(PRINCIPALS, caller.tenant, row.id, replace(row.record, groups=groups))
        self._record(tx, caller, "group.add", request)
        return request

    def remove(self, caller: Caller, request: GroupMember, tx: Tx) -> GroupMember:
        """End a membership, at once.

        Raises:
            ConfigurationError: There is no such group or principal, or it is not a member.
        """
        self._grants.require(tx, caller, "group.manage", f"group/{request.group}")
        self._existing(tx, caller, request.group)
        row = self._principal(tx, caller, request.principal)
        if request.group not in row.record.groups:
            raise ConfigurationError("the principal is not in this group")
        self._leave(tx, row, request.group)
        self._record(tx, caller, "group.remove", request)
        return request

    def list(self, caller: Caller, request: Page, tx: Tx) -> GroupList:
        """List the groups with their members."""
        self._grants.require(tx, caller, "group.manage", "group/*")
        rows = tx.scan(GROUPS, caller.tenant, after=request.after, limit=request.limit)
        members: dict[str, builtins.list[str]] = {row.id: [] for row in rows}
        for principal in _principals(tx, caller.tenant):
            for group in principal.record.groups:
                if group in members:
                    members[group].append(principal.id)
        self._audit.record(tx, caller, act="group.list", resource="group/*")
        return GroupList(
            groups=[
                GroupInfo(group=row.id, members=members[row.id], created_at=row.record.created_at)
                for row in rows
            ],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    # ------------------------------------------------------------------------------------------------

    def _act(self, tx: Tx, caller: Caller, group: str) -> str:
        """What joining a group is, for the quorum: the gravest of what the group is granted."""
        actions = {
            row.record.action for row in tx.scan(GRANTS, caller.tenant, prefix=f"{GROUP_PREFIX}{group}|")
        }
        if "approve" in actions:
            return QUORUM_CHANGE
        return "grant.detokenize" if "detokenize" in actions else "policy.change"

    def _existing(self, tx: Tx, caller: Caller, group: str) -> None:
        if tx.get(GROUPS, caller.tenant, group) is None:
            raise ConfigurationError("there is no such group", hint="list the groups")

    def _principal(self, tx: Tx, caller: Caller, principal: str) -> Row[Principal]:
        row = tx.get(PRINCIPALS, caller.tenant, principal)
        if row is None or row.record.state != "active":
            raise ConfigurationError("there is no such principal", hint="list the principals")
        return row

    def _leave(self, tx: Tx, row: Row[Principal], group: str) -> None:
        left = tuple(name for name in row.record.groups if name != group)
        tx.put(PRINCIPALS, row.tenant, row.id, replace(row.record, groups=left))

    def _record(self, tx: Tx, caller: Caller, act: str, request: GroupMember) -> None:
        detail = {"principal": request.principal}
        self._audit.record(tx, caller, act=act, resource=f"group/{request.group}", detail=detail)


def _principals(tx: Tx, tenant: str) -> Iterator[Row[Principal]]:
    after = ""
    while rows := tx.scan(PRINCIPALS, tenant, after=after):
        yield from rows
        after = rows[-1].id
