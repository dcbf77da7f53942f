"""Tenants, and the system tenant that manages them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.backups.records import known_backups
from cloister_host.identity.caller import OPERATOR, SYSTEM_TENANT, Caller
from cloister_host.identity.messages import (
    DeletionReport,
    NewTenant,
    TenantCreate,
    TenantInfo,
    TenantList,
    TenantName,
)
from cloister_host.identity.principals import PrincipalService
from cloister_host.identity.records import TENANTS, Tenant
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import GRANTS, Grant, Grants, grant_id
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.policy.roles import ROLES
from cloister_host.store import ExistsError, Row, Tx
from cloister_host.store.erasure import KEPT, erase, remaining

__all__ = ["ADMIN", "TenantService"]

ADMIN: Final = "admin"

# Managing, and seeing what was done. Sight of plaintext, and its use, must be granted by name.
_ADMIN_ACTIONS: Final = ROLES["admin"]
_OPERATOR_ACTIONS: Final = (
    "tenant.manage",
    "holder.manage",
    "backup.create",
    "backup.manage",
    "principal.manage",
    "grant.manage",
    "audit.read",
    "issuer.manage",
    "quorum.manage",
)


class TenantService:
    """Manages tenants, for callers of the system tenant."""

    def __init__(
        self,
        *,
        principals: PrincipalService,
        grants: Grants,
        quorum: Quorum,
        audit: Audit,
        clock: Callable[[], float],
        forget: Callable[[], None],
    ) -> None:
        self._principals = principals
        self._grants = grants
        self._quorum = quorum
        self._forget = forget
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "tenant.create": Operation(TenantCreate, self.create, effect=True),
            "tenant.list": Operation(Page, self.list, effect=False),
            "tenant.seal_off": Operation(TenantName, self.seal_off, effect=True),
            "tenant.unseal": Operation(TenantName, self.unseal, effect=True),
            "tenant.delete": Operation(TenantName, self.delete, effect=True),
            "tenant.deletion_report": Operation(TenantName, self.deletion_report, effect=False),
        }

    def create(self, caller: Caller, request: TenantCreate, tx: Tx) -> NewTenant:
        """Create a tenant with a KEK of its own and an `admin` who manages it.

        Raises:
            ExistsError: The name is taken.
        """
        resource = f"tenant/{request.tenant}"
        self._require(tx, caller, resource)
        api_key = self._add(tx, request.tenant, ADMIN, _ADMIN_ACTIONS, by=caller.principal)
        self._audit.record(tx, caller, act="tenant.create", resource=resource)
        return NewTenant(tenant=request.tenant, principal=ADMIN, api_key=api_key)

    def list(self, caller: Caller, request: Page, tx: Tx) -> TenantList:
        """List the tenants."""
        self._require(tx, caller, "tenant/*")
        rows = tx.scan(TENANTS, SYSTEM_TENANT, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="tenant.list", resource="tenant/*")
        return TenantList(
            tenants=[
                TenantInfo(tenant=row.id, state=row.record.state, created_at=row.record.created_at)
                for row in rows
            ],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def seal_off(self, caller: Caller, request: TenantName, tx: Tx) -> TenantInfo:
        """Close a tenant at once: its KEK is dropped, every call of it is refused, nothing of it is opened.

        Raises:
            ConfigurationError: There is no such tenant, or it is not active.
        """
        row = self._tenant(tx, caller, request, "active")
        tx.seal_off(request.tenant, sealed=True)
        tx.on_commit(self._forget)
        return self._turn(tx, caller, "tenant.seal_off", row, state="sealed_off")

    def unseal(self, caller: Caller, request: TenantName, tx: Tx) -> TenantInfo:
        """Open a tenant that was sealed off again.

        Raises:
            ConfigurationError: There is no such tenant, or it is not sealed off.
        """
        row = self._tenant(tx, caller, request, "sealed_off")
        tx.seal_off(request.tenant, sealed=False)
        return self._turn(tx, caller, "tenant.unseal", row, state="active")

    def delete(self, caller: Caller, request: TenantName, tx: Tx) -> DeletionReport:
        """Erase all that is stored of a tenant. It has to be sealed off first, so that nobody is surprised.

        Its name is never given again. It stays `deleting` as long as something could open a copy of its
        data (PROTOCOL 11).

        Raises:
            ConfigurationError: There is no such tenant, or it is not sealed off.
            QuorumNeededError: Others have to approve it.
        """
        row = self._tenant(tx, caller, request, "sealed_off")
        digest = request_digest("tenant.delete", request)
        resource = f"tenant/{request.tenant}"
        self._quorum.require(tx, caller, "tenant.delete", resource, digest, detail={"tenant": request.tenant})
        generation = tx.root_generation(request.tenant)
        erase(tx, request.tenant)
        tx.on_commit(self._forget)
        self._turn(
            tx,
            caller,
            "tenant.delete",
            row,
            state="deleting",
            deleted_at=int(self._clock()),
            generation=generation,
        )
        return self._report(tx, request.tenant)

    def deletion_report(self, caller: Caller, request: TenantName, tx: Tx) -> DeletionReport:
        """Tell what is left of a tenant that is being deleted; it is `deleted` once nothing is.

        Raises:
            ConfigurationError: There is no such tenant, or nobody deletes it.
        """
        self._tenant(tx, caller, request, "deleting", "deleted")
        self._audit.record(tx, caller, act="tenant.deletion_report", resource=f"tenant/{request.tenant}")
        return self._report(tx, request.tenant)

    def bootstrap(self, tx: Tx) -> str:
        """Create the system tenant and its operator; returns the operator's API key.

        Raises:
            ConfigurationError: This store has them already.
        """
        init = Caller(tenant=SYSTEM_TENANT, principal="init", kind="service", correlation_id="init")
        try:
            api_key = self._add(tx, SYSTEM_TENANT, OPERATOR, _OPERATOR_ACTIONS, by=init.principal)
        except ExistsError:
            raise ConfigurationError(
                "this host is initialised already", hint="use the API key that its init printed"
            ) from None
        self._audit.record(tx, init, act="host.init", resource=f"tenant/{SYSTEM_TENANT}")
        return api_key

    def _tenant(self, tx: Tx, caller: Caller, request: TenantName, *states: str) -> Row[Tenant]:
        """The tenant, if the caller manages it and it is in one of these states."""
        self._require(tx, caller, f"tenant/{request.tenant}")
        row = tx.get(TENANTS, SYSTEM_TENANT, request.tenant)
        if row is None or request.tenant == SYSTEM_TENANT:
            raise ConfigurationError("there is no such tenant to manage", hint="list the tenants")
        if row.record.state not in states:
            raise ConfigurationError(
                f"the tenant is {row.record.state}, and would have to be {' or '.join(states)}",
                hint="active, sealed_off and active again, or sealed_off, deleting, deleted",
            )
        return row

    def _turn(self, tx: Tx, caller: Caller, act: str, row: Row[Tenant], **change: Any) -> TenantInfo:
        record = replace(row.record, **change)
        tx.put(TENANTS, SYSTEM_TENANT, row.id, record)
        self._audit.record(tx, caller, act=act, resource=f"tenant/{row.id}")
        return TenantInfo(tenant=row.id, state=record.state, created_at=record.created_at)

    def _report(self, tx: Tx, tenant: str) -> DeletionReport:
        row = tx.get(TENANTS, SYSTEM_TENANT, tenant)
        assert row is not None, "a tenant's own row is never erased"
        record, rows = row.record, remaining(tx, tenant)
        remains = []
        # Its KEK may have been under an earlier generation before: copies of that time open with that one.
        remains += [
            f"copies of the database from before the deletion open with root key generation {number}, "
            "until that is destroyed"
            for number in sorted(tx.root_generations())
            if number <= record.generation
        ]
        # A backup brings the sealed root key along, so it opens for as long as there is a copy of it.
        remains += [
            f"backup {backup} has its rows, until `cloister backup forget {backup}` says that no copy is left"
            for backup, taken in known_backups(tx).items()
            if record.created_at <= taken.created_at <= record.deleted_at
        ]
        if any(name not in KEPT for name in rows):
            remains.append("rows of the tenant")
        if not remains and record.state == "deleting":
            record = replace(record, state="deleted")
            tx.put(TENANTS, SYSTEM_TENANT, tenant, record)
        return DeletionReport(
            tenant=tenant, state=record.state, deleted_at=record.deleted_at, rows=rows, remains=remains
        )

    def _require(self, tx: Tx, caller: Caller, resource: str) -> None:
        # A grant of tenant.manage means nothing outside the system tenant, however it came about.
        if caller.tenant != SYSTEM_TENANT:
            self._grants.deny(tx, caller, "tenant.manage", resource)
        self._grants.require(tx, caller, "tenant.manage", resource)

    def _add(self, tx: Tx, tenant: str, principal: str, actions: tuple[str, ...], *, by: str) -> str:
        now = int(self._clock())
        tx.insert(TENANTS, SYSTEM_TENANT, tenant, Tenant(state="active", created_at=now))
        tx.create_tenant_kek(tenant)
        api_key = self._principals.add(tx, tenant, principal, "person")
        for action in actions:
            grant = Grant(principal=principal, action=action, resource="*", granted_by=by, created_at=now)
            tx.insert(GRANTS, tenant, grant_id(principal, action, "*"), grant)
        return api_key
