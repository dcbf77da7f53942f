"""What the operations on tenants, principals and API keys take and give."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from cloister_host.identity.caller import Kind
from cloister_host.operations import Name, Request, Result

__all__ = [
    "DeletionReport",
    "KeyInfo",
    "KeyList",
    "KeyName",
    "KeyRotate",
    "NewPrincipal",
    "NewTenant",
    "PrincipalCreate",
    "PrincipalInfo",
    "PrincipalList",
    "PrincipalName",
    "TenantCreate",
    "TenantInfo",
    "TenantList",
    "TenantName",
]

YEAR: Final = 366 * 24 * 3600

Lifetime = Annotated[int, msgspec.Meta(ge=60, le=10 * YEAR)]
KeyId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z", max_length=16)]


class TenantCreate(Request):
    """Names a new tenant."""

    tenant: Name


class NewTenant(Result):
    """A new tenant with its first principal; the API key is shown this once."""

    tenant: str
    principal: str
    api_key: str


class TenantName(Request):
    """Names a tenant."""

    tenant: Name


class DeletionReport(Result):
    """What is left of a tenant that is being deleted.

    Attributes:
        state: `deleting` until nothing is left that could open a copy of its data; then `deleted`.
        rows: How many rows are left, by table.
        remains: What is left, in words; empty if nothing is.
    """

    tenant: str
    state: str
    deleted_at: int
    rows: dict[str, int]
    remains: list[str]


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
    """Names a new principal. A `faas` principal can never be given sight of plaintext.

    Attributes:
        api_key: Whether it gets an API key; one that is bound to an issuer's claims needs none.
        expires_seconds: After how many seconds that key ends.
    """

    principal: Name
    kind: Kind
    api_key: bool = True
    expires_seconds: Lifetime | None = None


class PrincipalName(Request):
    """Names a principal."""

    principal: Name


class KeyRotate(PrincipalName):
    """Asks for a new API key.

    Attributes:
        overlap_seconds: How long the keys it has stay good, so that whoever uses them can change over.
        expires_seconds: After how many seconds the new key ends.
    """

    overlap_seconds: Annotated[int, msgspec.Meta(ge=0, le=YEAR)] = 0
    expires_seconds: Lifetime | None = None


class KeyName(PrincipalName):
    """Names an API key by its public part."""

    key: KeyId


class NewPrincipal(Result):
    """A principal with a new API key, which is shown this once; empty if it was to have none."""

    principal: str
    api_key: str


class KeyInfo(Result):
    """One API key by its public part; `expires` is 0 for never (epoch seconds)."""

    key: str
    created_at: int
    expires: int


class KeyList(Result):
    """The API keys of a principal."""

    keys: list[KeyInfo]


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
