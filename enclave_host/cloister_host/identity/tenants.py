"""Tenants, and the system tenant that manages them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import OPERATOR, SYSTEM_TENANT, Caller
from cloister_host.identity.messages import NewTenant, TenantCreate, TenantInfo, TenantList
from cloister_host.identity.principals import PrincipalService
from cloister_host.identity.records import TENANTS, Tenant
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import GRANTS, Grant, Grants, grant_id
from cloister_host.policy.roles import ROLES
from cloister_host.store import ExistsError, Tx

__all__ = ["ADMIN", "TenantService"]

ADMIN: Final = "admin"

# Managing, and seeing what was done. Sight of plaintext, and its use, must be granted by name.
_ADMIN_ACTIONS: Final = ROLES["admin"]
_OPERATOR_ACTIONS: Final = (
    "tenant.manage",
    "principal.manage",
    "grant.manage",
    "audit.read",
    "issuer.manage",
    "quorum.manage",
)


class TenantService:
    """Manages tenants, for callers of the system tenant."""

    def __init__(
        self, principals: PrincipalService, grants: Grants, audit: Audit, clock: Callable[[], float]
    ) -> None:
        self._principals = principals
        self._grants = grants
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "tenant.create": Operation(TenantCreate, self.create, effect=True),
            "tenant.list": Operation(Page, self.list, effect=False),
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
