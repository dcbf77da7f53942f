"""The host's services over a real SQLite file, and a pen in its database."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from cloister_host.audit.entry import Entry
from cloister_host.identity.caller import SYSTEM_TENANT, Caller, Subject
from cloister_host.identity.issuer_keys import Fetch
from cloister_host.keymanager.root import RootKey
from cloister_host.services import Services, bootstrap, build_services
from cloister_host.store import Store

__all__ = ["Clock", "HostWorld", "caller"]


class Clock:
    """Epoch seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def caller(
    principal: str = "admin",
    *,
    tenant: str = "acme",
    kind: Subject = "person",
    correlation_id: str = "request-1",
) -> Caller:
    return Caller(tenant=tenant, principal=principal, kind=kind, correlation_id=correlation_id)


class HostWorld:
    """An initialised host with the tenants `acme` and `globex`, each with an `admin`."""

    def __init__(self, folder: Path, *, root: RootKey | None = None, fetch: Fetch | None = None) -> None:
        self.path = folder / "host.db"
        self.clock = Clock()
        self.root = root or RootKey.generate("test")
        self.store = Store(f"sqlite:///{self.path}", self.root.row_keys())
        self.store.migrate()
        self.monotonic = Clock()
        self.services: Services = build_services(
            self.store, self.root, self.clock, fetch=fetch, monotonic=self.monotonic
        )
        self.operations = self.services.operations()
        self.operator_key = bootstrap(self.services)
        self.operator = caller("operator", tenant=SYSTEM_TENANT)
        self.admin = caller()
        self.other_admin = caller(tenant="globex")
        self.admin_key: str = self.call(self.operator, "tenant.create", tenant="acme").api_key
        self.call(self.operator, "tenant.create", tenant="globex")

    def call(self, who: Caller, op: str, /, **payload: Any) -> Any:
        """One operation in one transaction, its payload as it comes off the wire."""
        operation = self.operations[op]
        request = operation.parse(json.dumps(payload).encode())
        with self.store.begin() as tx:
            result = operation.handler(who, request, tx)
            msgspec.json.encode(result)  # it has to fit a reply
            return result

    def grant(self, principal: str, action: str, resource: str, *, by: Caller | None = None) -> None:
        self.call(by or self.admin, "grant.create", principal=principal, action=action, resource=resource)

    def principal(self, name: str, *grants: tuple[str, str], kind: Any = "service") -> Caller:
        self.call(self.admin, "principal.create", principal=name, kind=kind)
        for action, resource in grants:
            self.grant(name, action, resource)
        return caller(name, kind=kind)

    def authenticate(self, api_key: str, *, tenant: str = "acme") -> Caller:
        return self.sign_in({"type": "api-key", "value": api_key}, tenant=tenant)

    def sign_in(self, credential: Any, *, tenant: str = "acme", **more: Any) -> Caller:
        """As the dispatcher does it: what comes from outside first, then in a transaction."""
        self.services.identity.prepare(self.store, tenant, credential)
        with self.store.begin() as tx:
            return self.services.identity.authenticate(
                tx, tenant, credential, correlation_id="request-1", **more
            )

    def audited(self, act: str | None = None, *, tenant: str = "acme") -> list[Entry]:
        with self.store.begin() as tx:
            entries = self.services.audit.read(tx, tenant, after="", limit=100_000)
        return [entry for entry in entries if act in {None, entry.act}]

    def pen(self, statement: str, *parameters: Any) -> list[Any]:
        """Write in the database as whoever owns it could."""
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        self.store.close()
