"""A host without HTTP: every service over a real store, called by operation name with JSON payloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cloister import jose
from cloister.envelope import Sealed, Value
from cloister.function.bundle import Bundle, build_bundle
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.deliveries.dispatcher import Schedule
from cloister_host.egress import EgressSettings
from cloister_host.functions.parts import FunctionParts, build_functions
from cloister_host.functions.sandbox import Sandbox
from cloister_host.functions.sandbox.process import ProcessSandbox
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.root import RootKey
from cloister_host.keysets import KeysetManager
from cloister_host.services import Services, bootstrap, build_services
from cloister_host.store import Store, Tx

TENANT = "acme"
START = 1_790_000_000.0


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass
class PlainAct:
    """An act without idempotency key; keeps what was finished."""

    store: Store
    finished: msgspec.Struct | None = None
    request_digest: str = "digest-of-the-sealed-request"
    length: int = 0

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        with self.store.begin() as tx:
            yield tx

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        self.finished = result

    def decided(self, _tx: Tx, _what: str, decide: Callable[[], bytes]) -> bytes:
        return decide()


class Workbench:
    """The tenant `acme` on a host of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        sandbox: Sandbox | None = None,
        egress: EgressSettings | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.folder = folder
        self.clock = Clock()
        root = RootKey.generate("test")
        self.store = Store(f"sqlite:///{folder / 'host.db'}", root.row_keys())
        self.store.migrate()
        self.services: Services = build_services(self.store, root, self.clock)
        bootstrap(self.services)
        self.keysets = KeysetManager(
            deployment_key=root.deployment_key,
            log_key=root.log_key,
            attester=SimulatedAttester("test", clock=self.clock),
            config={"root": {"environment": "simulated", "origin": "generated"}, "debug": []},
            holders=(),
            clock=self.clock,
        )
        self.parts: FunctionParts = build_functions(
            self.services,
            signer=self.keysets,
            sandbox=sandbox or ProcessSandbox(),
            egress=egress or EgressSettings(),
            schedule=schedule,
        )
        operator = Caller(tenant="system", principal="operator", kind="person", correlation_id="test")
        self.call("tenant.create", {"tenant": TENANT}, caller=operator)
        self.call("principal.create", {"principal": "lambda", "kind": "faas"})

    def close(self) -> None:
        self.parts.close()
        self.store.close()

    @staticmethod
    def caller(principal: str = "admin", kind: Any = "person", tenant: str = TENANT) -> Caller:
        return Caller(tenant=tenant, principal=principal, kind=kind, correlation_id="test")

    def call(self, op: str, payload: Mapping[str, Any], *, caller: Caller | None = None) -> Any:
        operation = {**self.services.operations(), **self.parts.operations()}[op]
        request = operation.parse(json.dumps(payload).encode())
        caller = caller or self.caller()
        if operation.staged:
            result = operation.handler(caller, request, PlainAct(self.store))
        else:
            with self.store.begin() as tx:
                result = operation.handler(caller, request, tx)
        return msgspec.to_builtins(result)

    def grant(self, principal: str, action: str, resource: str) -> None:
        self.call("grant.create", {"principal": principal, "action": action, "resource": resource})

    def write(self, source: str, *, name: str = "function", **files: str) -> Path:
        folder = self.folder / f"code-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        (folder / f"{name}.py").write_text(source)
        for other, content in files.items():
            (folder / f"{other}.py").write_text(content)
        return folder

    def deploy(
        self,
        source: str,
        *,
        settings: Mapping[str, str] | None = None,
        alias: str = "prod",
        grant: bool = True,
    ) -> Bundle:
        """Build, deploy and, unless told otherwise, grant what it needs and the right to invoke it."""
        bundle = build_bundle(self.write(source), settings)
        deployed = self.call("function.deploy", {"bundle": jose.b64url_encode(bundle.data), "alias": alias})
        if grant:
            for need in deployed["needs"]:
                self.grant(f"function:{bundle.digest}", need["action"], need["resource"])
            self.grant("lambda", "invoke", f"function/{bundle.manifest.name}")
        return bundle

    def invoke(self, function: str, **payload: Any) -> Any:
        lambda_caller = self.caller("lambda", "faas")
        return self.call("function.invoke", {"function": function, **payload}, caller=lambda_caller)

    def key(self, name: str, purpose: str = "seal") -> None:
        self.call("key.create", {"key": name, "purpose": purpose})

    def seal(self, key: str, value: Value, **context: str) -> Sealed:
        self.grant("admin", "seal", f"key/{key}")
        with self.store.begin() as tx:
            return self.services.keymanager.seal_for_output(tx, self.caller(), key, value, context or None)

    def open(self, sealed: str, **context: str) -> Value:
        with self.store.begin() as tx:
            opened = self.services.keymanager.open_granted(
                tx, TENANT, [sealed], [context or None], keys=frozenset({Sealed(sealed).key})
            )[0]
        assert not isinstance(opened, Exception)
        return opened

    def audit(self) -> list[dict[str, Any]]:
        """What was recorded for the tenant, oldest first."""
        with self.store.begin() as tx:
            entries = self.services.audit.read(tx, TENANT, after="", limit=1000)
        return [msgspec.to_builtins(entry) for entry in entries]
