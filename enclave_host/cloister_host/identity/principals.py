"""Principals of a tenant, and their API keys."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from cloister.errors import ConfigurationError, LimitError
from cloister_host.audit import Audit
from cloister_host.identity.api_keys import ApiKeyHasher, new_api_key
from cloister_host.identity.caller import Caller, Kind
from cloister_host.identity.messages import (
    KeyInfo,
    KeyList,
    KeyName,
    KeyRotate,
    NewPrincipal,
    PrincipalCreate,
    PrincipalInfo,
    PrincipalList,
    PrincipalName,
)
from cloister_host.identity.records import API_KEYS, PRINCIPALS, ApiKey, Principal
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Row, Tx

__all__ = ["PrincipalService"]

MAX_API_KEYS: Final = 8


class PrincipalService:
    """Manages the principals of the caller's tenant."""

    def __init__(
        self, hasher: ApiKeyHasher, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]
    ) -> None:
        self._hasher = hasher
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "principal.create": Operation(PrincipalCreate, self.create, effect=True),
            "principal.list": Operation(Page, self.list, effect=False),
            "principal.disable": Operation(PrincipalName, self.disable, effect=True),
            "principal.rotate_key": Operation(KeyRotate, self.rotate_key, effect=True),
            "principal.keys": Operation(PrincipalName, self.keys, effect=False),
            "principal.revoke_key": Operation(KeyName, self.revoke_key, effect=True),
        }

    def create(self, caller: Caller, request: PrincipalCreate, tx: Tx) -> NewPrincipal:
        """Create a principal without any grant.

        Raises:
            ExistsError: The name is taken.
        """
        resource = f"principal/{request.principal}"
        self._grants.require(tx, caller, "principal.manage", resource)
        api_key = self.add(
            tx,
            caller.tenant,
            request.principal,
            request.kind,
            with_key=request.api_key,
            expires_seconds=request.expires_seconds,
        )
        self._audit.record(
            tx, caller, act="principal.create", resource=resource, detail={"kind": request.kind}
        )
        return NewPrincipal(principal=request.principal, api_key=api_key)

    def list(self, caller: Caller, request: Page, tx: Tx) -> PrincipalList:
        """List the principals."""
        self._grants.require(tx, caller, "principal.manage", "principal/*")
        rows = tx.scan(PRINCIPALS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="principal.list", resource="principal/*")
        return PrincipalList(
            principals=[
                PrincipalInfo(
                    principal=row.id,
                    kind=row.record.kind,
                    state=row.record.state,
                    created_at=row.record.created_at,
                )
                for row in rows
            ],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def disable(self, caller: Caller, request: PrincipalName, tx: Tx) -> PrincipalName:
        """Disable a principal for good; its name is never given to another.

        Raises:
            ConfigurationError: There is no such principal, or the caller would disable itself.
        """
        resource = f"principal/{request.principal}"
        self._grants.require(tx, caller, "principal.manage", resource)
        if request.principal == caller.principal:
            raise ConfigurationError(
                "a principal cannot disable itself", hint="let another administrator do it"
            )
        row = self._existing(tx, caller, request)
        for key in row.record.api_keys:
            tx.delete(API_KEYS, caller.tenant, key)
        tx.put(PRINCIPALS, caller.tenant, row.id, replace(row.record, state="disabled", api_keys=()))
        self._audit.record(tx, caller, act="principal.disable", resource=resource)
        return request

    # --- API keys -----------------------------------------------------------------------------------

    def rotate_key(self, caller: Caller, request: KeyRotate, tx: Tx) -> NewPrincipal:
        """Give a principal a new API key; the ones it has end now, or after an overlap.

        A principal needs no right, and nobody's approval, for a new key of its own.

        Raises:
            ConfigurationError: There is no such principal.
            LimitError: It has too many keys.
            QuorumNeededError: Others have to approve that somebody else gets this principal's key.
        """
        row = self._permitted(tx, caller, request)
        if request.principal != caller.principal:
            digest = request_digest("principal.rotate_key", request)
            resource = f"principal/{request.principal}"
            self._quorum.require_for_credential(tx, caller, row.id, resource, digest)
        kept = self._end(tx, row, at=int(self._clock()) + request.overlap_seconds)
        if len(kept) >= MAX_API_KEYS:
            raise LimitError(
                "this principal has too many API keys", hint="revoke some: `cloister principal revoke-key`"
            )
        key_id, api_key = self._issue(tx, caller.tenant, row.id, request.expires_seconds)
        tx.put(PRINCIPALS, caller.tenant, row.id, replace(row.record, api_keys=(*kept, key_id)))
        self._record(tx, caller, "principal.rotate_key", row.id, key_id)
        return NewPrincipal(principal=row.id, api_key=api_key)

    def keys(self, caller: Caller, request: PrincipalName, tx: Tx) -> KeyList:
        """List the API keys of a principal by their public parts; its own it may always see.

        Raises:
            ConfigurationError: There is no such principal.
        """
        row = self._permitted(tx, caller, request)
        self._audit.record(tx, caller, act="principal.keys", resource=f"principal/{row.id}")
        return KeyList(
            keys=[
                KeyInfo(key=key.id, created_at=key.record.created_at, expires=key.record.expires)
                for key in self._keys(tx, row)
            ]
        )

    def revoke_key(self, caller: Caller, request: KeyName, tx: Tx) -> KeyName:
        """End one API key, at once.

        Raises:
            ConfigurationError: There is no such principal, or it has no such key.
        """
        row = self._permitted(tx, caller, request)
        if request.key not in row.record.api_keys:
            raise ConfigurationError("the principal has no such API key", hint="list them first")
        tx.delete(API_KEYS, caller.tenant, request.key)
        left = tuple(key for key in row.record.api_keys if key != request.key)
        tx.put(PRINCIPALS, caller.tenant, row.id, replace(row.record, api_keys=left))
        self._record(tx, caller, "principal.revoke_key", row.id, request.key)
        return request

    def add(
        self,
        tx: Tx,
        tenant: str,
        principal: str,
        kind: Kind,
        *,
        with_key: bool = True,
        expires_seconds: int | None = None,
    ) -> str:
        """Write a new principal and return its API key; for whoever checked and records the act."""
        key_id, api_key = self._issue(tx, tenant, principal, expires_seconds) if with_key else ("", "")
        record = Principal(
            kind=kind,
            state="active",
            api_keys=(key_id,) if key_id else (),
            created_at=int(self._clock()),
        )
        tx.insert(PRINCIPALS, tenant, principal, record)
        return api_key

    # ------------------------------------------------------------------------------------------------

    def _permitted(self, tx: Tx, caller: Caller, request: PrincipalName) -> Row[Principal]:
        """The principal, if it is the caller's own or the caller manages it."""
        if request.principal != caller.principal:
            self._grants.require(tx, caller, "principal.manage", f"principal/{request.principal}")
        return self._existing(tx, caller, request)

    def _existing(self, tx: Tx, caller: Caller, request: PrincipalName) -> Row[Principal]:
        row = tx.get(PRINCIPALS, caller.tenant, request.principal)
        if row is None or row.record.state != "active":
            raise ConfigurationError("there is no such principal", hint="list the principals")
        return row

    def _issue(self, tx: Tx, tenant: str, principal: str, expires_seconds: int | None) -> tuple[str, str]:
        key, text = new_api_key()
        now = int(self._clock())
        record = ApiKey(
            principal=principal,
            hash=self._hasher.hash(tenant, key),
            created_at=now,
            expires=now + expires_seconds if expires_seconds else 0,
        )
        tx.insert(API_KEYS, tenant, key.id, record)
        return key.id, text

    def _end(self, tx: Tx, principal: Row[Principal], *, at: int) -> builtins.list[str]:
        """Let the keys of a principal end no later than this; returns those that live on until then."""
        now, kept = int(self._clock()), []
        for key in self._keys(tx, principal):
            ends = min(at, key.record.expires or at)
            if ends <= now:
                tx.delete(API_KEYS, principal.tenant, key.id)
            else:
                tx.put(API_KEYS, principal.tenant, key.id, replace(key.record, expires=ends))
                kept.append(key.id)
        return kept

    def _keys(self, tx: Tx, principal: Row[Principal]) -> builtins.list[Row[ApiKey]]:
        found = tx.get_many(API_KEYS, principal.tenant, principal.record.api_keys)
        return [found[key] for key in principal.record.api_keys if key in found]

    def _record(self, tx: Tx, caller: Caller, act: str, principal: str, key: str) -> None:
        self._audit.record(tx, caller, act=act, resource=f"principal/{principal}", detail={"key": key})
