"""What the operations on secrets take and give. One result holds a value, under a right of its own."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cloister_host.operations import Name, Request, Result

__all__ = [
    "SecretDestroy",
    "SecretGiven",
    "SecretInfo",
    "SecretList",
    "SecretName",
    "SecretPut",
    "SecretSchedule",
    "SecretVersion",
    "SecretVersions",
    "SecretWanted",
]

Number = Annotated[int, Meta(ge=1, le=10**9)]
Period = Annotated[int, Meta(ge=1, le=100 * 366 * 86_400)]
Reference = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}@[A-Za-z0-9_-]{1,64}\Z", max_length=128)]


class SecretPut(Request):
    """A new value for a secret.

    Attributes:
        if_version: The newest version as the caller knows it, 0 if there is none: check-and-set.
        ttl_seconds: How long the value is good.
    """

    secret: Name
    value: Annotated[str, Meta(min_length=1, max_length=64 * 1024)]
    if_version: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    ttl_seconds: Period | None = None

    def __repr__(self) -> str:
        return f"SecretPut(secret={self.secret!r})"


class SecretName(Request):
    """Names a secret."""

    secret: Name


class SecretWanted(SecretName, kw_only=True):
    """Names a secret, and a version of it; the newest, if none is given."""

    version: Number | None = None


class SecretDestroy(SecretName, kw_only=True):
    """Names the version that is destroyed."""

    version: Number


class SecretSchedule(SecretName, kw_only=True):
    """Says how a secret is rotated; without a function, not at all.

    Attributes:
        function: `name@alias` or `name@digest` of the function that makes the new value.
        key: The key that the function seals its answer under.
        every_seconds: How often the host has it made by itself, as the principal that asks this.
    """

    function: Reference | None = None
    key: Name | None = None
    every_seconds: Period | None = None


class SecretInfo(Result):
    """A secret and its newest version; times are epoch seconds."""

    secret: str
    version: int
    updated_at: int
    expires_at: int | None = None
    function: str | None = None
    rotate_at: int | None = None


class SecretList(Result):
    """One page of secrets; `next` continues it, and is empty at the end."""

    secrets: list[SecretInfo]
    next: str


class SecretVersion(Result):
    """One version: `active`, `expired`, `deleted` (it can come back) or `destroyed`."""

    version: int
    state: str
    created_at: int
    expires_at: int | None


class SecretVersions(Result):
    """The versions of a secret, oldest first."""

    secret: str
    versions: list[SecretVersion]


class SecretGiven(Result):
    """A secret's value, for whoever holds the right `secret.read`."""

    secret: str
    version: int
    value: str

    def __repr__(self) -> str:
        return f"SecretGiven(secret={self.secret!r}, version={self.version})"
