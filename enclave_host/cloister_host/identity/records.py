"""The protected rows of tenants, principals and API keys."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cloister_host.identity.caller import Kind
from cloister_host.store import Table

__all__ = ["API_KEYS", "GROUPS", "PRINCIPALS", "TENANTS", "ApiKey", "Group", "Principal", "Tenant"]


class Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `tenants` row, which stands in the system tenant.

    Attributes:
        state: `sealed_off`: nothing is answered or opened; `deleting`: its rows are gone, but something
            that could still open a copy of them remains; `deleted`: that is gone too.
        deleted_at: When its rows were erased (epoch seconds).
        generation: Of the root key that wrapped its KEK, known once it is erased.
    """

    state: Literal["active", "sealed_off", "deleting", "deleted"]
    created_at: int
    deleted_at: int = 0
    generation: int = 0


class Principal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `principals` row.

    Attributes:
        api_keys: The ids of its API keys; a key that is not among them is none, whatever its row says.
    """

    kind: Kind
    state: Literal["active", "disabled"]
    api_keys: tuple[str, ...]
    created_at: int
    groups: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `user_groups` row; its members name it in their own rows."""

    created_at: int


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of an `api_keys` row: whose it is, its keyed hash (base64url), and when it ends.

    Attributes:
        expires: Epoch seconds, or 0 for never.
    """

    principal: str
    hash: str
    created_at: int
    expires: int = 0


TENANTS: Final = Table("tenants", Tenant, "tenant")
PRINCIPALS: Final = Table("principals", Principal, "principal")
GROUPS: Final = Table("user_groups", Group, "group")
API_KEYS: Final = Table("api_keys", ApiKey, "API key")
