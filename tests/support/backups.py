"""Backups of a host without HTTP, taken as the dispatcher would."""

from __future__ import annotations

import io
import json
from typing import Any

from cloister import jose
from cloister.backups import Backup
from cloister_host.identity.caller import Caller
from support.host_world import HostWorld

__all__ = ["BACKUP_KEY", "pieces", "take", "take_file", "take_from"]

BACKUP_KEY = jose.generate_key("HPKE-10-KE", kid="backup.1")


class _Transactions:
    def __init__(self, host: HostWorld) -> None:
        self.begin = host.store.begin


def pieces(host: HostWorld, *, who: Caller | None = None, key: Any = None) -> Any:
    """The stream of one backup."""
    operation = host.operations["backup.create"]
    payload = {"key": key if key is not None else jose.public_jwk(BACKUP_KEY)}
    request = operation.parse(json.dumps(payload).encode())
    for piece in operation.handler(who or host.operator, request, _Transactions(host)):
        yield jose.b64url_decode(json.loads(piece)["data"])


def take(host: HostWorld) -> bytes:
    """A whole backup."""
    return b"".join(pieces(host))


def take_file(host: HostWorld) -> Backup:
    """A whole backup, its manifest verified."""
    return Backup(io.BytesIO(take(host)), deployment=host.root.deployment)


def take_from(host: HostWorld) -> bytes:
    """A whole backup of a host that has just started."""
    host.services.log.open()
    return take(host)
