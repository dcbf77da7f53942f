"""CPU time to authenticate, authorise and audit a call, 32 at once, beside an empty transaction.

The store is the embedded default: SQLite with a write-ahead log and fully synchronous commits. Waiting for
the disk costs no CPU and is not counted; the kernel's part of the commit is.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cloister import jose
from cloister.protocol import audience
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.keymanager.root import RootKey
from cloister_host.services import bootstrap, build_services
from cloister_host.store import Store
from figures import Row

THREADS = 32
CALLS = 1600
BUDGET_US = 150
ISSUER = "https://issuer.example"


class Bench:
    """A host's services over a database of their own, with a principal that may read keys."""

    def __init__(self, folder: Path) -> None:
        self.root = RootKey.generate("test")
        self.store = Store(f"sqlite:///{folder / 'host.db'}", self.root.row_keys())
        self.store.migrate()
        self.services = build_services(self.store, self.root, time.time)
        bootstrap(self.services)
        self.call("tenant.create", who=("operator", SYSTEM_TENANT), tenant="acme")
        self.api_key = self.call("principal.create", principal="app", kind="service").api_key
        self.call("grant.create", principal="app", action="seal", resource="key/*")

    def call(self, op: str, *, who: tuple[str, str] = ("admin", "acme"), **payload: Any) -> Any:
        """One operation in a transaction of its own."""
        operation = self.services.operations()[op]
        request = operation.parse(json.dumps(payload).encode())
        caller = Caller(tenant=who[1], principal=who[0], kind="person", correlation_id="bench")
        with self.store.begin() as tx:
            return operation.handler(caller, request, tx)

    def token(self) -> dict[str, str]:
        """An OIDC credential of a bound workload, under a pinned ES384 key as AWS signs with."""
        key = jose.generate_key("ES384", kid="k1")
        self.call("issuer.create", issuer=ISSUER, jwks={"keys": [key.public().to_jwk()]})
        self.call("principal.bind", principal="app", issuer=ISSUER, claims={"sub": "workload"})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "workload",
            "aud": audience(self.root.deployment),
            "iat": now,
            "exp": now + 900,
        }
        value = jose.sign_compact(json.dumps(claims).encode(), key, typ="JWT")
        return {"type": "oidc", "value": value}

    def conditioned(self) -> None:
        """The same right by a role of a group, under a condition."""
        self.call("grant.delete", principal="app", action="seal", resource="key/*")
        self.call("group.create", group="apps")
        self.call("group.add", group="apps", principal="app")
        conditions = {"purposes": ["bench"], "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
        self.call(
            "grant.create", principal="group:apps", action="seal", resource="key/*", conditions=conditions
        )

    def authorise(self, credential: dict[str, str]) -> None:
        """What every call costs before it does anything."""
        identity, services = self.services.identity, self.services
        identity.prepare(self.store, "acme", credential)
        with self.store.begin() as tx:
            caller = identity.authenticate(tx, "acme", credential, correlation_id="bench", purpose="bench")
            services.grants.require(tx, caller, "seal", "key/ssn")
            services.audit.record(tx, caller, act="key.data_key", resource="key/ssn")

    def empty(self) -> None:
        """A transaction that does nothing."""
        with self.store.begin():
            pass


def cpu_us(work: Callable[[], object]) -> float:
    """CPU time of this process for one call, in microseconds, with 32 at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: work(), range(THREADS * 2)))
        started = time.process_time()
        list(pool.map(lambda _: work(), range(CALLS)))
        return (time.process_time() - started) / CALLS * 1e6


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        key = {"type": "api-key", "value": bench.api_key}
        empty = cpu_us(bench.empty)
        figures = [("API key, grant, audit", cpu_us(lambda: bench.authorise(key)))]
        token = bench.token()
        figures.append(("OIDC token, grant, audit", cpu_us(lambda: bench.authorise(token))))
        bench.conditioned()
        figures.append(("API key, group and condition, audit", cpu_us(lambda: bench.authorise(key))))
        bench.store.close()
    return [
        Row(what=what, ours=ours, peer="empty transaction", theirs=empty, budget=BUDGET_US)
        for what, ours in figures
    ]
