"""Versioned secrets of a tenant: written through the API, read by egress alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from cloister.errors import ConfigurationError
from cloister.secret import Secret
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.secrets.messages import SecretInfo, SecretList, SecretName, SecretPut
from cloister_host.store import Row, Table, Tx
from cloister_host.store.canonical import utf8

__all__ = ["SecretValue", "Secrets"]


class SecretRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `secrets` row. A deleted one stays, so that its versions never begin again."""

    state: Literal["active", "deleted"]
    updated_at: int


SECRETS: Final = Table("secrets", SecretRecord, "secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretValue:
    """A secret's value, and the version that caches are keyed by."""

    version: int
    value: Secret = field(repr=False)


class Secrets:
    """Keeps secrets, and gives them to confidential functions' egress."""

    def __init__(self, grants: Grants, audit: Audit, clock: Callable[[], float]) -> None:
        self._grants = grants
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers. There is no operation that reads a value."""
        return {
            "secret.put": Operation(SecretPut, self.put, effect=True),
            "secret.list": Operation(Page, self.list, effect=False),
            "secret.delete": Operation(SecretName, self.delete, effect=True),
        }

    def put(self, caller: Caller, request: SecretPut, tx: Tx) -> SecretInfo:
        """Write a new version of a secret."""
        resource = f"secret/{request.secret}"
        self._grants.require(tx, caller, "secret.manage", resource)
        record = SecretRecord(state="active", updated_at=int(self._clock()))
        row = tx.put(SECRETS, caller.tenant, request.secret, record, secret=utf8(request.value))
        self._audit.record(tx, caller, act="secret.put", resource=resource, detail={"version": row.version})
        return _info(row)

    def list(self, caller: Caller, request: Page, tx: Tx) -> SecretList:
        """List names and versions."""
        self._grants.require(tx, caller, "secret.manage", "secret/*")
        rows = tx.scan(SECRETS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="secret.list", resource="secret/*")
        return SecretList(
            secrets=[_info(row) for row in rows if row.record.state == "active"],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def delete(self, caller: Caller, request: SecretName, tx: Tx) -> SecretInfo:
        """Delete a secret's value.

        Raises:
            ConfigurationError: There is no such secret.
        """
        resource = f"secret/{request.secret}"
        self._grants.require(tx, caller, "secret.manage", resource)
        self._existing(tx, caller, request.secret)
        record = SecretRecord(state="deleted", updated_at=int(self._clock()))
        row = tx.put(SECRETS, caller.tenant, request.secret, record)
        self._audit.record(
            tx, caller, act="secret.delete", resource=resource, detail={"version": row.version}
        )
        return _info(row)

    def read(self, tx: Tx, caller: Caller, name: str) -> SecretValue:
        """Read a secret for a function's egress (right `use-secret`, which only functions can hold).

        Raises:
            ConfigurationError: There is no such secret.
        """
        resource = f"secret/{name}"
        self._grants.require(tx, caller, "use-secret", resource)
        row = self._existing(tx, caller, name)
        self._audit.record(tx, caller, act="use-secret", resource=resource, detail={"version": row.version})
        return SecretValue(version=row.version, value=tx.reveal(SECRETS, row))

    def _existing(self, tx: Tx, caller: Caller, name: str) -> Row[SecretRecord]:
        row = tx.get(SECRETS, caller.tenant, name)
        if row is None or row.record.state != "active":
            raise ConfigurationError("there is no such secret", hint="write it with secret.put")
        return row


def _info(row: Row[SecretRecord]) -> SecretInfo:
    return SecretInfo(secret=row.id, version=row.version, updated_at=row.record.updated_at)
