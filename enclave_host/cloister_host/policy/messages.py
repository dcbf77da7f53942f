"""What the operations on grants and groups take and give."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from cloister_host.operations import Name, Page, Request, Result
from cloister_host.policy.conditions import Conditions

__all__ = [
    "Considered",
    "Explain",
    "Explanation",
    "GrantInfo",
    "GrantList",
    "GrantListRequest",
    "GrantName",
    "GrantRequest",
    "GroupInfo",
    "GroupList",
    "GroupMember",
    "GroupName",
    "OwnGrants",
    "OwnGrantsRequest",
    "RoleInfo",
    "RoleList",
]

Subject = Annotated[
    str,
    msgspec.Meta(pattern=r"^((group:)?[a-z][a-z0-9-]{0,62}|function:[A-Za-z0-9_-]{1,128})\Z", max_length=160),
]
Action = Annotated[str, msgspec.Meta(max_length=64)]
Resource = Annotated[str, msgspec.Meta(min_length=1, max_length=320)]
Purpose = Annotated[str, msgspec.Meta(max_length=128)]


class GrantName(Request):
    """Names one grant: who (a principal, `group:<name>`, `function:<digest>`), what, to which thing.

    Attributes:
        action: An action, or `role:<name>`.
    """

    principal: Subject
    action: Action
    resource: Resource


class GrantRequest(GrantName):
    """One grant, and when it counts."""

    conditions: Conditions = Conditions()


class GrantListRequest(Page):
    """Asks for the grants of one principal or group, or of all."""

    principal: Subject | None = None


class OwnGrantsRequest(Page):
    """Asks who the caller is, and what was granted to it and its groups."""


class GrantInfo(Result):
    """One grant, and who gave it when (epoch seconds)."""

    principal: str
    action: str
    resource: str
    granted_by: str
    created_at: int
    conditions: Conditions


class GrantList(Result):
    """One page of grants; `next` continues it, and is empty at the end."""

    grants: list[GrantInfo]
    next: str


class OwnGrants(Result):
    """The caller, and one page of the grants given to it or to a group of its."""

    tenant: str
    principal: str
    kind: str
    grants: list[GrantInfo]
    next: str


class Explain(Request):
    """Asks why somebody may do something, or may not.

    Attributes:
        purpose: As the call would state it.
        function: The digest of the function that would be invoked.
        claims: As the caller's issuer would state them.
        at: Epoch seconds; now if it is not given.
    """

    principal: Subject
    action: Action
    resource: Resource
    purpose: Purpose = ""
    function: Annotated[str, msgspec.Meta(max_length=64)] = ""
    claims: dict[str, Any] = msgspec.field(default_factory=dict)
    at: Annotated[int, msgspec.Meta(ge=0, lt=2**40)] | None = None


class Considered(Result):
    """One grant that names the subject and the action, and why it does not count; empty if it does."""

    grant: GrantInfo
    unmet: str


class Explanation(Result):
    """Whether it is allowed, why in one sentence, and every grant that was looked at."""

    allowed: bool
    because: str
    considered: list[Considered]


class GroupName(Request):
    """Names a group."""

    group: Name


class GroupMember(GroupName):
    """Names a group and one of its members."""

    principal: Name


class GroupInfo(Result):
    """One group with its members."""

    group: str
    members: list[str]
    created_at: int


class GroupList(Result):
    """One page of groups; `next` continues it, and is empty at the end."""

    groups: list[GroupInfo]
    next: str


class RoleInfo(Result):
    """One role and the actions it holds."""

    role: str
    actions: list[str]


class RoleList(Result):
    """Every role."""

    roles: list[RoleInfo]
