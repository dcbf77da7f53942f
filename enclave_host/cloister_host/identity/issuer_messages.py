"""What the operations on issuers and bindings take and give."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from cloister_host.identity.certificates import MAX_AUTHORITY_CHARS
from cloister_host.identity.issuer_fetch import HTTPS_URL
from cloister_host.identity.jwks import Algorithm
from cloister_host.operations import Name, Page, Request, Result

__all__ = [
    "BindingInfo",
    "BindingList",
    "BindingListRequest",
    "BindingRequest",
    "IssuerInfo",
    "IssuerList",
    "IssuerName",
    "IssuerRequest",
]

MAX_LIFETIME: Final = 25 * 3600
"""Entra's tokens for managed identities live 24 hours, from five minutes before they are issued."""

IssuerId = Annotated[
    str, msgspec.Meta(pattern=rf"^(?:{HTTPS_URL}|ca:[a-z][a-z0-9-]{{0,62}})\Z", max_length=512)
]
Url = Annotated[str, msgspec.Meta(pattern=rf"^{HTTPS_URL}\Z", max_length=512)]


class IssuerName(Request):
    """Names an issuer: its URL exactly as in `iss`, or `ca:<name>`."""

    issuer: IssuerId


class IssuerRequest(IssuerName):
    """Everything about an issuer.

    Attributes:
        jwks: For closed networks: its public keys, so that nothing is ever fetched.
        jwks_url: Where its keys are, if it has no discovery document.
        audience: The only audience accepted, `cloister:<deployment>` by default; another one must hold the
            deployment's name too (for issuers that give out no other, such as Entra).
        algorithms: The only ones it may use; by default all that are accepted.
        max_lifetime_seconds: Most between `iat` and `exp` of a token, up to 25 hours.
        certificates: For `ca:<name>`: the authority's certificates, PEM.
    """

    jwks: dict[str, Any] | None = None
    jwks_url: Url | None = None
    audience: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    algorithms: Annotated[list[Algorithm], msgspec.Meta(min_length=1, max_length=5)] | None = None
    max_lifetime_seconds: Annotated[int, msgspec.Meta(ge=60, le=MAX_LIFETIME)] = 3600
    certificates: Annotated[str, msgspec.Meta(max_length=MAX_AUTHORITY_CHARS)] | None = None


class IssuerInfo(Result):
    """One issuer; `keys` is the digest of its pinned keys, or empty if they are fetched."""

    issuer: str
    kind: str
    audience: str
    algorithms: list[str]
    jwks_url: str
    keys: str
    max_lifetime_seconds: int
    created_at: int


class IssuerList(Result):
    """One page of issuers; `next` continues it, and is empty at the end."""

    issuers: list[IssuerInfo]
    next: str


class BindingRequest(Request):
    """Whoever shows all these claims by this issuer is this principal; `sub` must be among them."""

    principal: Name
    issuer: IssuerId
    claims: dict[str, Any]


class BindingListRequest(Page):
    """Asks for the bindings of one principal, or of all."""

    principal: Name | None = None


class BindingInfo(Result):
    """One binding, and who made it when (epoch seconds)."""

    principal: str
    issuer: str
    claims: dict[str, Any]
    created_by: str
    created_at: int


class BindingList(Result):
    """One page of bindings; `next` continues it, and is empty at the end."""

    bindings: list[BindingInfo]
    next: str
