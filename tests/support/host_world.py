"""The host's services over a real database, SQLite or PostgreSQL, and a pen in it."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

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

    def __init__(
        self,
        folder: Path,
        *,
        url: str | None = None,
        root: RootKey | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.path = folder / "host.db"
        self.url = url or f"sqlite:///{self.path}"
        self.clock = Clock()
        self.root = root or RootKey.generate("test")
        self.store = Store(self.url, self.root.row_keys())
        self._stores = [self.store]
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

    @classmethod
    def over(cls, url: str, store: Store, root: RootKey, services: Services, clock: Clock) -> HostWorld:
        """A host that was initialised elsewhere; the store stays its opener's to close."""
        self = cls.__new__(cls)
        self.url = url
        self.path = Path(url.removeprefix("sqlite:///"))
        self.clock, self.root, self.store, self.services = clock, root, store, services
        self.monotonic = Clock()
        self._stores = []
        self.operations = services.operations()
        self.operator = caller("operator", tenant=SYSTEM_TENANT)
        self.admin = caller()
        self.other_admin = caller(tenant="globex")
        return self

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
        """Write in the database as whoever owns it could; statements are written as for SQLite."""
        if self.url.startswith("postgresql"):
            # SQLite tells that somebody wrote to it, so that what is known is compared with what is there
            # at once. PostgreSQL does not: rows in memory stay what they truly are until the next scrub.
            self.store.forget_rows()
            return self._pen_in_postgresql(statement, parameters)
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def only_sqlite(self, why: str) -> None:
        """Skip what has no meaning on PostgreSQL."""
        if self.url.startswith("postgresql"):
            pytest.skip(why)

    def tables(self) -> dict[str, list[str]]:
        """The columns of every table, as the database tells them."""
        if self.url.startswith("postgresql"):
            found = self.pen(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = current_schema() ORDER BY ordinal_position"
            )
        else:
            found = self.pen(
                "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
                " WHERE t.type = 'table'"
            )
        tables: dict[str, list[str]] = {}
        for table, column in found:
            tables.setdefault(table, []).append(column)
        return tables

    def copy(self) -> dict[str, list[Any]]:
        """Every row of every table."""
        return {table: self.pen(f"SELECT * FROM {table}") for table in self.tables()}

    def put_back(self, copy: dict[str, list[Any]]) -> None:
        """Make every table what it was."""
        for table, rows in copy.items():
            self.pen(f"DELETE FROM {table}")
            for row in rows:
                self.pen(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)

    def _pen_in_postgresql(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        import psycopg

        if "PRAGMA" in statement:
            pytest.skip("this looks into SQLite")
        translated = re.sub(r"x'([0-9a-f]*)'", r"'\\x\1'::bytea", statement.replace("%", "%%"))
        translated = re.sub(
            r"zeroblob\((\d+|length\(\w+\))\)",
            r"decode(repeat('00', \1), 'hex')",
            translated.replace("?", "%s"),
        )
        refused = (
            psycopg.DataError,
            psycopg.errors.DatatypeMismatch,
            psycopg.errors.SyntaxError,
            psycopg.errors.UndefinedObject,
            psycopg.errors.UndefinedTable,
        )
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(translated, parameters)
                return cursor.fetchall() if cursor.description else []
        except refused as error:
            # Columns of SQLite hold anything; these do not.
            pytest.skip(f"PostgreSQL does not let its owner do this: {type(error).__name__}")

    def second_store(self) -> Store:
        """The same database, opened once more, as by another replica."""
        self._stores.append(Store(self.url, self.root.row_keys()))
        return self._stores[-1]

    def close(self) -> None:
        for store in self._stores:
            store.close()
