"""The protected rows of secrets and their versions."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cloister_host.identity.caller import Kind
from cloister_host.store import Table

__all__ = ["SECRETS", "SECRET_VERSIONS", "Rotation", "SecretRecord", "State", "VersionRecord", "version_id"]

State = Literal["active", "deleted", "destroyed"]


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a secret is rotated.

    Attributes:
        function: Makes the new value, and seals it under `key`.
        principal: Who asked for it; the function runs for this principal.
        leased_until: While a rotation is going on, when it counts as lost.
    """

    function: str
    key: str
    principal: str
    kind: Kind
    every_seconds: int | None = None
    rotated_at: int = 0
    leased_until: int = 0

    def is_due(self, now: int) -> bool:
        """Whether the host should rotate now."""
        if self.every_seconds is None or now < self.leased_until:
            return False
        return now >= self.rotated_at + self.every_seconds


class SecretRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content of a `secrets` row. It stays, so that versions never begin again."""

    latest: int
    updated_at: int
    rotation: Rotation | None = None


class VersionRecord(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Content of a `secret_versions` row; the value is its blob, until it is destroyed."""

    state: State
    created_at: int
    expires_at: int | None = None
    deleted_at: int | None = None

    def state_at(self, now: int) -> Literal["active", "expired", "deleted", "destroyed"]:
        """The state at a time."""
        if self.state == "active" and self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return self.state


SECRETS: Final = Table("secrets", SecretRecord, "secret")
SECRET_VERSIONS: Final = Table("secret_versions", VersionRecord, "secret version")


def version_id(secret: str, version: int) -> str:
    """The primary key of a version; names hold no slash, and ids sort as numbers do."""
    return f"{secret}/{version:010d}"
