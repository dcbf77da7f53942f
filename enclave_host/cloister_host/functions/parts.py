"""Everything that runs confidential functions, built over the host's services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloister_host.audit.receipts import Receipts, ReceiptSigner
from cloister_host.deliveries.dispatcher import DeliverySigner, Dispatcher, Schedule
from cloister_host.deliveries.outbox import Outbox
from cloister_host.deliveries.service import DeliveryService
from cloister_host.egress import Egress, EgressSettings
from cloister_host.functions.budgets import AnswerBudgets
from cloister_host.functions.invocation import Invocation
from cloister_host.functions.jobs.records import Jobs
from cloister_host.functions.jobs.runner import JobRunner
from cloister_host.functions.jobs.service import JobService
from cloister_host.functions.logs import FunctionLogs
from cloister_host.functions.registry import Registry
from cloister_host.functions.release import Release
from cloister_host.functions.sandbox import Sandbox
from cloister_host.functions.service import FunctionService
from cloister_host.functions.signers import Signers
from cloister_host.functions.streaming import Streaming
from cloister_host.functions.workers import Pool
from cloister_host.hints import Mend
from cloister_host.operations import Operation
from cloister_host.secrets.rotation import SecretRotation
from cloister_host.services import Services

__all__ = ["FunctionParts", "Signer", "build_functions"]


class Signer(ReceiptSigner, DeliverySigner, Protocol):
    """Signs what leaves the host: receipts and deliveries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionParts:
    """Functions, their egress and their deliveries; `start` before the first request, `close` at the end."""

    functions: FunctionService
    signers: Signers
    streaming: Streaming
    jobs: JobRunner
    job_service: JobService
    deliveries: DeliveryService
    dispatcher: Dispatcher
    secret_rotation: SecretRotation
    pool: Pool
    egress: Egress
    mends: Sequence[Mend]

    def operations(self) -> Mapping[str, Operation]:
        """Every operation of these services, by name."""
        return {
            **self.functions.operations(),
            **self.signers.operations(),
            **self.job_service.operations(),
            **self.streaming.operations(),
            **self.deliveries.operations(),
            **self.secret_rotation.operations(),
        }

    def start(self) -> None:
        """Begin to deliver and to run jobs."""
        self.dispatcher.start()
        self.jobs.start()

    def close(self) -> None:
        """Stop delivering and running jobs, end every worker, close every connection."""
        self.jobs.close()
        self.dispatcher.close()
        self.pool.close()
        self.egress.close()


def build_functions(
    services: Services,
    *,
    signer: Signer,
    sandbox: Sandbox,
    egress: EgressSettings,
    schedule: Schedule | None = None,
) -> FunctionParts:
    """Build the parts.

    Args:
        services: The host's services.
        signer: Signs receipts and deliveries.
        sandbox: Where tenant code runs; closed with the parts.
        egress: Trust and development switches of connections to the outside.
        schedule: When deliveries are tried again.
    """
    pool = Pool(sandbox)
    way_out = Egress(egress)
    outbox = Outbox(services.clock)
    registry = Registry()
    signers = Signers(services.grants, services.quorum, services.audit, services.clock)
    logs = FunctionLogs(services.keymanager, services.clock)
    invocation = Invocation(
        registry=registry,
        pool=pool,
        grants=services.grants,
        audit=services.audit,
        keys=services.keymanager,
        secrets=services.secrets,
        release=Release(services.keymanager, services.tokenization),
        egress=way_out,
        outbox=outbox,
        receipts=Receipts(signer, services.clock),
        budgets=AnswerBudgets(services.clock),
        signers=signers,
        logs=logs,
        clock=services.clock,
    )
    jobs = Jobs(services.clock)
    runner = JobRunner(begin=services.store.begin, jobs=jobs, invocation=invocation, audit=services.audit)
    return FunctionParts(
        functions=FunctionService(
            registry=registry,
            invocation=invocation,
            pool=pool,
            keys=services.keymanager,
            signers=signers,
            logs=logs,
            grants=services.grants,
            quorum=services.quorum,
            audit=services.audit,
            clock=services.clock,
        ),
        signers=signers,
        streaming=Streaming(registry=registry, invocation=invocation, grants=services.grants),
        jobs=runner,
        job_service=JobService(
            jobs=jobs,
            runner=runner,
            registry=registry,
            grants=services.grants,
            audit=services.audit,
        ),
        deliveries=DeliveryService(outbox, services.grants, services.audit),
        dispatcher=Dispatcher(
            begin=services.store.begin,
            outbox=outbox,
            egress=way_out,
            signer=signer,
            grants=services.grants,
            audit=services.audit,
            schedule=schedule,
        ),
        secret_rotation=SecretRotation(
            secrets=services.secrets,
            invocation=invocation,
            keys=services.keymanager,
            audit=services.audit,
            begin=services.store.begin,
        ),
        pool=pool,
        egress=way_out,
        mends=(outbox.mend, jobs.mend),
    )
