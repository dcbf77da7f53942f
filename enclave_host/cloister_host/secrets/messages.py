"""What the operations on secrets take and give. No result holds a value."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cloister_host.operations import Name, Request, Result

__all__ = ["SecretInfo", "SecretList", "SecretName", "SecretPut"]


class SecretPut(Request):
    """A new value for a secret."""

    secret: Name
    value: Annotated[str, Meta(min_length=1, max_length=64 * 1024)]

    def __repr__(self) -> str:
        return f"SecretPut(secret={self.secret!r})"


class SecretName(Request):
    """Names a secret."""

    secret: Name


class SecretInfo(Result):
    """A secret's name and version (epoch seconds of its last change)."""

    secret: str
    version: int
    updated_at: int


class SecretList(Result):
    """One page of secrets; `next` continues it, and is empty at the end."""

    secrets: list[SecretInfo]
    next: str
