"""What the operations on backups take and give."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from cloister_host.operations import Request, Result

__all__ = ["BackupCreate", "BackupInfo", "BackupList", "BackupName"]

BackupId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z", max_length=22)]


class BackupCreate(Request):
    """Asks for a backup.

    Attributes:
        key: Public half of the key that it is sealed to, an HPKE JWK with a `kid`.
    """

    key: dict[str, Any]


class BackupName(Request):
    """Names a backup."""

    backup: BackupId


class BackupInfo(Result):
    """One backup, as it was taken."""

    backup: str
    created_at: int
    by: str
    key: str
    generations: list[int]
    state: str
    digest: str


class BackupList(Result):
    """One page of the list of backups."""

    backups: list[BackupInfo]
    next: str
