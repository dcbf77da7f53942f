"""Principals of a tenant, and their API keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.api_keys import ApiKeyHasher, new_api_key
from cloister_host.identity.caller import Caller, Kind
from cloister_host.identity.messages import (
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
            "principal.rotate_key": Operation(PrincipalName, self.rotate_key, effect=True),
            "principal.disable": Operation(PrincipalName, self.disable, effect=True),
        }

    def create(self, caller: Caller, request: PrincipalCreate, tx: Tx) -> NewPrincipal:
        """Create a principal without any grant.

        Raises:
            ExistsError: The name is taken.
        """
        resource = f"principal/{request.principal}"
        self._grants.require(tx, caller, "principal.manage", resource)
        api_key = self.add(tx, caller.tenant, request.principal, request.kind)
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

    def rotate_key(self, caller: Caller, request: PrincipalName, tx: Tx) -> NewPrincipal:
        """Give a principal a new API key; the old one stops working at once.

        A principal needs no right, and nobody's approval, for a new key of its own.

        Raises:
            ConfigurationError: There is no such principal.
            QuorumNeededError: Others have to approve that somebody else gets this principal's key.
        """
        resource = f"principal/{request.principal}"
        own = request.principal == caller.principal
        if not own:
            self._grants.require(tx, caller, "principal.manage", resource)
        row = self._existing(tx, caller, request)
        if not own:
            digest = request_digest("principal.rotate_key", request)
            self._quorum.require_for_credential(tx, caller, row.id, resource, digest)
        key_id, api_key = self._issue(tx, caller.tenant, row.id)
        tx.delete(API_KEYS, caller.tenant, row.record.api_key)
        tx.put(PRINCIPALS, caller.tenant, row.id, replace(row.record, api_key=key_id))
        self._audit.record(tx, caller, act="principal.rotate_key", resource=resource)
        return NewPrincipal(principal=row.id, api_key=api_key)

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
        tx.delete(API_KEYS, caller.tenant, row.record.api_key)
        tx.put(PRINCIPALS, caller.tenant, row.id, replace(row.record, state="disabled"))
        self._audit.record(tx, caller, act="principal.disable", resource=resource)
        return request

    def add(self, tx: Tx, tenant: str, principal: str, kind: Kind) -> str:
        """Write a new principal and return its API key; for whoever checked and records the act."""
        key_id, api_key = self._issue(tx, tenant, principal)
        record = Principal(kind=kind, state="active", api_key=key_id, created_at=int(self._clock()))
        tx.insert(PRINCIPALS, tenant, principal, record)
        return api_key

    def _issue(self, tx: Tx, tenant: str, principal: str) -> tuple[str, str]:
        key, text = new_api_key()
        record = ApiKey(
            principal=principal, hash=self._hasher.hash(tenant, key), created_at=int(self._clock())
        )
        tx.insert(API_KEYS, tenant, key.id, record)
        return key.id, text

    def _existing(self, tx: Tx, caller: Caller, request: PrincipalName) -> Row[Principal]:
        row = tx.get(PRINCIPALS, caller.tenant, request.principal)
        if row is None or row.record.state != "active":
            raise ConfigurationError("there is no such principal", hint="list the principals")
        return row
