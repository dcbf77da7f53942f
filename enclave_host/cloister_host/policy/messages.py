"""What the grant operations take and give."""

from __future__ import annotations

from typing import Annotated

import msgspec

from cloister_host.operations import Page, Request, Result

__all__ = ["GrantInfo", "GrantList", "GrantListRequest", "GrantRequest", "OwnGrants", "OwnGrantsRequest"]

Principal = Annotated[
    str, msgspec.Meta(pattern=r"^([a-z][a-z0-9-]{0,62}|function:[A-Za-z0-9_-]{1,128})\Z", max_length=160)
]
Action = Annotated[str, msgspec.Meta(max_length=64)]
Resource = Annotated[str, msgspec.Meta(min_length=1, max_length=320)]


class GrantRequest(Request):
    """Names one grant: who, what, to which thing."""

    principal: Principal
    action: Action
    resource: Resource


class GrantListRequest(Page):
    """Asks for the grants of one principal, or of all."""

    principal: Principal | None = None


class OwnGrantsRequest(Page):
    """Asks who the caller is, and what was granted to it."""


class GrantInfo(Result):
    """One grant, and who gave it when (epoch seconds)."""

    principal: str
    action: str
    resource: str
    granted_by: str
    created_at: int


class GrantList(Result):
    """One page of grants; `next` continues it, and is empty at the end."""

    grants: list[GrantInfo]
    next: str


class OwnGrants(Result):
    """The caller, and one page of the grants given to it directly."""

    tenant: str
    principal: str
    kind: str
    grants: list[GrantInfo]
    next: str
