"""The composition root: settings in, host out. The only place that builds things."""

from __future__ import annotations

import hashlib
import importlib.resources
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from starlette.applications import Starlette

import cloister
from cloister_host.attester import Attester
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.egress.settings import EgressSettings
from cloister_host.functions.parts import build_functions
from cloister_host.functions.sandbox.choose import choose_sandbox, missing_layers
from cloister_host.http.description import describe
from cloister_host.http.dispatch import Dispatcher
from cloister_host.http.endpoints import Endpoints
from cloister_host.http.metrics import Metrics
from cloister_host.keymanager.root import Environment
from cloister_host.keymanager.scheduler import Scheduler
from cloister_host.keysets import KeysetManager
from cloister_host.services import Services, bootstrap, build_services
from cloister_host.settings import HostSettings
from cloister_host.store import Database, Store
from cloister_host.unseal.file import FileUnseal
from cloister_host.unseal.root import create_root, unseal_root

__all__ = ["Host", "build", "initialize", "measurement"]

ENVIRONMENT: Final[Environment] = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host, built and ready to be served."""

    app: Starlette
    keysets: KeysetManager
    services: Services
    attester: Attester
    deployment: str
    measurement: str
    sandbox: str


def initialize(settings: HostSettings) -> str:
    """Generate the root key and the database of a new deployment; returns the operator's API key.

    Raises:
        ConfigurationError: There is one in this place already.
    """
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    unseal = FileUnseal.create(settings.unseal_key)
    database = Database(settings.database_url)
    try:
        database.migrate()
        root = create_root(database, unseal, ENVIRONMENT, accept_file_unseal=False)
        return bootstrap(build_services(Store(database, root.row_keys()), root, time.time))
    finally:
        database.close()


@contextmanager
def build(settings: HostSettings, *, clock: Callable[[], float] = time.time) -> Iterator[Host]:
    """Build a host over the state of `initialize`; everything it started ends with the context.

    Raises:
        ConfigurationError: The state is missing, or of another environment.
    """
    with ExitStack() as stack:
        # The sandbox first: nothing that it starts may ever have shared memory with a key.
        sandbox = choose_sandbox(settings.accepted_sandboxes)
        stack.callback(sandbox.close)
        image = measurement()
        attester = SimulatedAttester(image, clock=clock)
        database = Database(settings.database_url)
        stack.callback(database.close)
        database.migrate()
        unseal = FileUnseal(settings.unseal_key)
        root = unseal_root(database, unseal, ENVIRONMENT, accept_file_unseal=False)
        services = build_services(Store(database, root.row_keys()), root, clock)
        egress_settings = EgressSettings(
            trust_anchors=b"".join(path.read_bytes() for path in settings.egress_trust_anchors),
            allow_private_addresses=settings.egress_allow_private_addresses,
        )
        config = {
            "version": cloister.__version__,
            "store": database.kind,
            "unseal": unseal.name,
            "root": {"environment": root.environment, "origin": "generated"},
            "sandbox": {
                "level": sandbox.level,
                "layers": list(sandbox.layers),
                "missing": missing_layers(sandbox),
            },
            "debug": list(egress_settings.debug_switches),
        }
        keysets = KeysetManager(
            deployment_key=root.deployment_key,
            attester=attester,
            config=config,
            holders=({"format": attester.format, "measurements": {"measurement": image}, "minimum": {}},),
            clock=clock,
        )
        functions = build_functions(
            services,
            signer=keysets,
            sandbox=sandbox,
            egress=egress_settings,
            schedule=settings.deliveries,
        )
        stack.callback(functions.close)
        scheduler = Scheduler(services.store.begin, services.chores())
        stack.callback(scheduler.close)
        operations = {**services.operations(), **functions.operations()}
        metrics = Metrics()

        def facts() -> Mapping[str, Any]:
            with services.store.begin():
                keyset = keysets.keyset()
            return {"status": "ready", "deployment": keyset.deployment, **keyset.config}

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            functions.start()
            scheduler.start()
            yield

        endpoints = Endpoints(
            dispatcher=Dispatcher(
                services=services, operations=operations, keysets=keysets, metrics=metrics, clock=clock
            ),
            keysets=keysets,
            metrics=metrics,
            readiness=facts,
            description=describe(operations, version=cloister.__version__),
            max_request_bytes=settings.max_request_bytes,
            limiter=anyio.CapacityLimiter(settings.threads),
        )
        yield Host(
            app=endpoints.application(lifespan=lifespan),
            keysets=keysets,
            services=services,
            attester=attester,
            deployment=keysets.keyset().deployment,
            measurement=image,
            sandbox=sandbox.level,
        )


def measurement() -> str:
    """What the simulated attester calls this image: the digest of the code that is installed."""
    digest = hashlib.sha256()
    for package in ("cloister", "cloister_host"):
        root = Path(str(importlib.resources.files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}\x00".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"
