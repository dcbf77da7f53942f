"""The composition root: settings in, host out. The only place that builds things."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.applications import Starlette

import cloister
from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.attester import Attester
from cloister_host.attester.machine import Machine
from cloister_host.attester.parts import build_attester
from cloister_host.audit.proofs import LogService
from cloister_host.audit.receipts import EvidenceArchive
from cloister_host.audit.sequencer import MERGE_DELAY_SECONDS, Sequencer
from cloister_host.audit.states import StateCommitter
from cloister_host.audit.witness import HttpWitness
from cloister_host.egress import Egress
from cloister_host.egress.settings import EgressSettings
from cloister_host.fairness import Gate, Limits, Shares
from cloister_host.functions.parts import FunctionParts, build_functions
from cloister_host.functions.sandbox.choose import choose_sandbox, missing_layers
from cloister_host.guarding import guardian_of
from cloister_host.hints import Hints
from cloister_host.http.description import describe
from cloister_host.http.dispatch import Dispatcher
from cloister_host.http.endpoints import Endpoints
from cloister_host.http.metrics import Metrics
from cloister_host.identity.issuer_fetch import EgressFetch
from cloister_host.keymanager.scheduler import Scheduler
from cloister_host.keysets import KeysetManager
from cloister_host.replicas.endpoints import peer_application, peer_routes
from cloister_host.replicas.parts import Replicas, build_replicas
from cloister_host.services import Services, bootstrap, build_services
from cloister_host.settings import HostSettings
from cloister_host.store import Database, Store
from cloister_host.store.anchors import FileAnchor, Guardian
from cloister_host.unseal.choose import create_unseal, open_unseal
from cloister_host.unseal.root import check_provider, create_root, require_no_root, unseal_root

__all__ = ["Host", "accept_store", "build", "initialize"]

HINTS_SECONDS: Final = 300.0
EXPIRIES_SECONDS: Final = 3600.0


OPENING_THREADS: Final = 4
# SQLite has one writer, and the interpreter one thread at a time; PostgreSQL answers many at once.
WORKED_ON_AT_ONCE: Final = {"sqlite": 1, "postgresql": 8}
WAITING_PER_TENANT: Final = 256
# A thread that computes lets another have the interpreter after this long; five milliseconds, as Python has
# it, are longer than most calls.
SWITCH_SECONDS: Final = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host, built and ready to be served."""

    app: Starlette
    peer_app: Starlette
    stopping: Callable[[], None]
    keysets: KeysetManager
    services: Services
    machine: Machine
    trust_anchors: tuple[bytes, ...] | None
    deployment: str
    sandbox: str
    replicas: Replicas


def initialize(
    settings: HostSettings, *, attester: Attester | None = None, clock: Callable[[], float] = time.time
) -> str:
    """Generate the root key and the database of a new deployment; returns the operator's API key.

    The root key keeps the environment that this machine's own evidence proves, and unseals in no other.

    Args:
        settings: What the host is started with.
        attester: One that was built elsewhere, instead of the choice of the settings.
        clock: Epoch seconds.

    Raises:
        ConfigurationError: There is one in this place already, or this machine cannot attest.
    """
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    parts = build_attester(settings.attester, state=settings.state, clock=clock, attester=attester)
    check_provider(settings.unseal, parts.machine.environment, accept_file_unseal=settings.accept_file_unseal)
    database = Database(settings.database_url)
    try:
        database.migrate()
        require_no_root(database)  # before a token gets a key, or an operator a share, that opens nothing
        unseal = create_unseal(settings, parts)
        root = create_root(
            database, unseal, parts.machine.environment, accept_file_unseal=settings.accept_file_unseal
        )
        store = Store(database, root.row_keys())
        operator_key = bootstrap(build_services(store, root, clock))
        guardian_of(settings, store, root.row_keys()).anchor_now()
    finally:
        database.close()
    return operator_key


def accept_store(
    settings: HostSettings, *, attester: Attester | None = None, clock: Callable[[], float] = time.time
) -> None:
    """Anchor the store as it is, though it may be older than its anchor or have none.

    Raises:
        ConfigurationError: There is no anchor in the settings.
        TamperedError: The store does not even agree with itself.
    """
    if settings.anchor is None:
        raise ConfigurationError("no anchor is named", hint="--anchor FILE")
    parts = build_attester(settings.attester, state=settings.state, clock=clock, attester=attester)
    database = Database(settings.database_url)
    try:
        root = unseal_root(
            database,
            open_unseal(settings, parts),
            parts.machine.environment,
            accept_file_unseal=settings.accept_file_unseal,
        )
        store = Store(database, root.row_keys())
        store.verify()
        guardian_of(settings, store, root.row_keys()).anchor_now(anew=True)
    finally:
        database.close()


@contextmanager
def build(
    settings: HostSettings, *, attester: Attester | None = None, clock: Callable[[], float] = time.time
) -> Iterator[Host]:
    """Build a host over the state of `initialize`; everything it started ends with the context.

    Args:
        settings: What the host is started with.
        attester: One that was built elsewhere, instead of the choice of the settings.
        clock: Epoch seconds.

    Raises:
        ConfigurationError: The state is missing, or of another environment.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    with ExitStack() as stack:
        # The sandbox first: nothing that it starts may ever have shared memory with a key.
        sandbox = choose_sandbox(settings.accepted_sandboxes, settings.accepted_missing_layers)
        stack.callback(sandbox.close)
        parts = build_attester(settings.attester, state=settings.state, clock=clock, attester=attester)
        stack.callback(parts.endorser.close)
        database = Database(
            settings.database_url,
            shared=settings.workers > 1,
            timeout_seconds=settings.database_timeout_seconds,
        )
        stack.callback(database.close)
        database.migrate()
        unseal = open_unseal(settings, parts)
        root = unseal_root(
            database, unseal, parts.machine.environment, accept_file_unseal=settings.accept_file_unseal
        )
        witness = HttpWitness(*settings.witness) if settings.witness else None
        egress_settings = EgressSettings(
            trust_anchors=b"".join(path.read_bytes() for path in settings.egress_trust_anchors),
            allow_private_addresses=settings.egress_allow_private_addresses,
            outbound=settings.way_out,
        )
        store = Store(database, root.row_keys())
        guardian = guardian_of(settings, store, root.row_keys())
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
            "incarnation": guardian.incarnation,
            "anchor": "none" if settings.anchor is None else FileAnchor.name,
            "log": {
                "merge_delay_seconds": MERGE_DELAY_SECONDS,
                "witness": str(witness.key) if witness else "",
            },
            "debug": list(egress_settings.debug_switches),
        }
        issuers_egress = Egress(egress_settings)
        stack.callback(issuers_egress.close)
        services = build_services(store, root, clock, fetch=EgressFetch(issuers_egress))
        replicas = build_replicas(
            settings, root=root, parts=parts, services=services, config=config, clock=clock
        )
        stack.callback(replicas.peers.close)
        keysets = replicas.keysets
        guardian.check({} if settings.alone else replicas.peers.join())
        stack.callback(guardian.close)
        functions = build_functions(
            services,
            signer=keysets,
            sandbox=sandbox,
            egress=egress_settings,
            schedule=settings.deliveries,
        )
        stack.callback(functions.close)
        scheduler = _scheduler(services, functions)
        stack.callback(scheduler.close)
        states = _checked_states(services)
        services.log.open(witness)
        sequencer = Sequencer(services.audit, services.log, states=states)
        stack.callback(sequencer.close)
        proofs = LogService(services.log, services.audit, services.grants, keysets, EvidenceArchive(keysets))
        operations = {
            **services.operations(),
            **functions.operations(),
            **proofs.operations(),
            **replicas.holders.operations(),
        }
        metrics = Metrics()

        ending = threading.Event()

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            if not settings.alone:
                await anyio.to_thread.run_sync(replicas.peers.start)
            guardian.start()
            sequencer.start()
            functions.start()
            scheduler.start()
            parts.endorser.start()
            yield

        gate = Gate(Shares(_limits(settings.threads, store.kind)))
        stack.callback(gate.close)
        endpoints = Endpoints(
            dispatcher=Dispatcher(
                services=services, operations=operations, keysets=keysets, metrics=metrics, clock=clock
            ),
            keysets=keysets,
            metrics=metrics,
            readiness=partial(_facts, services, guardian, keysets, ending),
            description=describe(operations, version=cloister.__version__),
            max_request_bytes=settings.max_request_bytes,
            limiter=anyio.CapacityLimiter(OPENING_THREADS),
            gate=gate,
            threads=anyio.CapacityLimiter(math.inf),
            peers=peer_routes(replicas.giver),
        )
        yield Host(
            app=endpoints.application(lifespan=lifespan),
            peer_app=peer_application(replicas.giver),
            stopping=ending.set,
            keysets=keysets,
            services=services,
            machine=parts.machine,
            trust_anchors=settings.attester.anchors(),
            deployment=keysets.keyset().deployment,
            sandbox=sandbox.level,
            replicas=replicas,
        )


def _facts(
    services: Services, guardian: Guardian, keysets: KeysetManager, ending: threading.Event
) -> Mapping[str, Any]:
    """What `/readyz` says, or an error that says why the host cannot serve."""
    if ending.is_set():
        raise UnavailableError("the host is stopping")
    services.log.require_intact()
    guardian.require_intact()
    with services.store.begin():
        keyset = keysets.keyset()
    return {"status": "ready", "deployment": keyset.deployment, **keyset.config}


def _limits(threads: int, store: str) -> Limits:
    return Limits(
        at_once=WORKED_ON_AT_ONCE[store],
        inside=threads,
        inside_per_tenant=max(threads // 2, 1),
        waiting_per_tenant=WAITING_PER_TENANT,
    )


def _scheduler(services: Services, functions: FunctionParts) -> Scheduler:
    hints = Hints(
        time.monotonic,
        [
            *((mend, HINTS_SECONDS) for mend in functions.mends),
            (services.idempotency.mend, EXPIRIES_SECONDS),
        ],
    )
    return Scheduler(
        services.store.begin,
        [*services.chores(), hints.keep],
        [functions.secret_rotation.rotate_due],
    )


def _checked_states(services: Services) -> StateCommitter:
    states = StateCommitter(services.store, services.audit, time.monotonic)
    states.check()
    return states
