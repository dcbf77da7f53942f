"""The protected rows of issuers and of what binds their subjects to principals."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

import msgspec

from cloister_host.store import Table

__all__ = ["BINDINGS", "ISSUERS", "Binding", "Issuer", "subject_prefix"]


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of an `issuers` row; its id is the issuer's URL, or `ca:<name>`.

    Attributes:
        kind: Whether it signs tokens or client certificates.
        audience: The only audience accepted.
        jwks: The pinned key set as JSON text; empty if it is fetched.
        jwks_url: Where to fetch it; empty to ask the issuer's discovery document.
        certificates: The authority's certificates in PEM form, for kind `x509`.
    """

    kind: Literal["oidc", "x509"]
    audience: str = ""
    jwks: str = ""
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ()
    max_lifetime_seconds: int = 0
    certificates: str = ""
    created_at: int


class Binding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `bindings` row: whoever shows all these claims by this issuer is this principal."""

    issuer: str
    principal: str
    claims: dict[str, Any]
    created_by: str
    created_at: int


ISSUERS: Final = Table("issuers", Issuer, "issuer")
BINDINGS: Final = Table("bindings", Binding, "binding")


def subject_prefix(issuer: str, subject: str) -> str:
    """What the ids of all bindings of one subject begin with."""
    return hashlib.sha256(f"{issuer}\x00{subject}".encode("utf-8", "surrogatepass")).hexdigest()[:32] + "|"
