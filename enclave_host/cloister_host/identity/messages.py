"""What the operations on tenants and principals take and give."""

from __future__ import annotations

from typing import Literal

from cloister_host.identity.caller import Kind
from cloister_host.operations import Name, Request, Result

__all__ = [
    "NewPrincipal",
    "NewTenant",
    "PrincipalCreate",
    "PrincipalInfo",
    "PrincipalList",
    "PrincipalName",
    "TenantCreate",
    "TenantInfo",
    "TenantList",
]


class TenantCreate(Request):
    """Names a new tenant."""

    tenant: Name


class NewTenant(Result):
    """A new tenant with its first principal; the API key is shown this once."""

    tenant: str
    principal: str
    api_key: str


class TenantInfo(Result):
    """One tenant."""

    tenant: str
    state: str
    created_at: int


class TenantList(Result):
    """One page of tenants; `next` continues it, and is empty at the end."""

    tenants: list[TenantInfo]
    next: str


class PrincipalCreate(Request):
    """Names a new principal. A `faas` principal can never be given sight of plaintext."""

    principal: Name
    kind: Kind


class PrincipalName(Request):
    """Names a principal."""

    principal: Name


class NewPrincipal(Result):
    """A principal with a new API key, which is shown this once."""

    principal: str
    api_key: str


class PrincipalInfo(Result):
    """One principal."""

    principal: str
    kind: Kind
    state: Literal["active", "disabled"]
    created_at: int


class PrincipalList(Result):
    """One page of principals; `next` continues it, and is empty at the end."""

    principals: list[PrincipalInfo]
    next: str
