"""Starting jobs, and asking after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.functions.jobs.records import JOBS, JobError, JobRecord, Jobs, State
from cloister_host.functions.jobs.runner import JobRunner
from cloister_host.functions.messages import Invoke
from cloister_host.functions.ports import Act
from cloister_host.functions.registry import Registry
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page, Request, Result
from cloister_host.policy import Grants
from cloister_host.store import Row, Tx

__all__ = ["JobInfo", "JobList", "JobName", "JobService"]


class JobName(Request):
    """Names a job."""

    job: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z", max_length=22)]


class JobInfo(Result):
    """One job (times in epoch seconds); `result` is what `function.invoke` would have answered."""

    job: str
    function: str
    principal: str
    state: State
    percent: int
    attempts: int
    created_at: int
    updated_at: int
    error: JobError | None = None
    result: dict[str, Any] | None = None


class JobList(Result):
    """One page of jobs, without results; `next` continues it, and is empty at the end."""

    jobs: list[JobInfo]
    next: str


class JobService:
    """The jobs of the caller's tenant: a principal's own, or all but for results with `job.manage`."""

    def __init__(
        self, *, jobs: Jobs, runner: JobRunner, registry: Registry, grants: Grants, audit: Audit
    ) -> None:
        self._jobs = jobs
        self._runner = runner
        self._registry = registry
        self._grants = grants
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "function.start": Operation(Invoke, self.start, effect=True, staged=True),
            "job.get": Operation(JobName, self.get, effect=False),
            "job.cancel": Operation(JobName, self.cancel, effect=True),
            "job.list": Operation(Page, self.list, effect=False),
        }

    def start(self, caller: Caller, request: Invoke, act: Act) -> JobInfo:
        """Start an invocation that nobody waits for.

        Raises:
            DeniedError: The caller may not invoke the function.
            ConfigurationError: There is no such function.
        """
        name = request.function.partition("@")[0]
        with act.begin() as tx:
            self._grants.require(
                tx,
                caller,
                "invoke",
                f"function/{name}",
                digest=lambda: self._registry.digest(tx, caller.tenant, request.function),
            )
            resolved = self._registry.resolve(tx, caller.tenant, request.function)
            row = self._jobs.add(
                tx,
                caller,
                replace(request, function=f"{name}@{resolved.digest}"),
                digest=act.request_digest,
                repeatable=not resolved.manifest.egress,
            )
            self._audit.record(
                tx,
                caller,
                act="function.start",
                resource=f"function/{name}",
                detail={"digest": resolved.digest, "job": row.id},
            )
            info = _info(row)
            act.finish(tx, info)
        self._runner.wake()
        return info

    def get(self, caller: Caller, request: JobName, tx: Tx) -> JobInfo:
        """Tell how far a job is, and its result once it is done.

        Managing jobs is no sight of what functions answered: the result is for who started it alone.
        """
        row = self._own(tx, caller, request.job)
        mine = row.record.principal == caller.principal
        result = tx.reveal(JOBS, row).reveal() if mine and row.record.state == "done" else None
        self._audit.record(tx, caller, act="job.get", resource=f"job/{request.job}")
        return _info(row, None if result is None else msgspec.json.decode(result))

    def cancel(self, caller: Caller, request: JobName, tx: Tx) -> JobInfo:
        """End a job. What it has done outside before stays done.

        Raises:
            ConfigurationError: It has ended already.
        """
        row = self._own(tx, caller, request.job)
        match row.record.state:
            case "waiting":
                row = self._jobs.settle(tx, row, "cancelled")
            case "running":
                secret = tx.reveal(JOBS, row).reveal()
                row = self._jobs.write(tx, row, cancel=True, secret=secret)
            case ended:
                raise ConfigurationError(f"the job is {ended}", hint="only what waits or runs is cancelled")
        self._audit.record(tx, caller, act="job.cancel", resource=f"job/{request.job}")
        self._runner.wake()
        return _info(row)

    def list(self, caller: Caller, request: Page, tx: Tx) -> JobList:
        """List the jobs of the tenant."""
        self._grants.require(tx, caller, "job.manage", "job/*")
        rows = tx.scan(JOBS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="job.list", resource="job/*")
        return JobList(
            jobs=[_info(row) for row in rows], next=rows[-1].id if len(rows) == request.limit else ""
        )

    def _own(self, tx: Tx, caller: Caller, job_id: str) -> Row[JobRecord]:
        """The caller's own job, or any with the right to manage it."""
        row = tx.get(JOBS, caller.tenant, job_id)
        if row is None or row.record.principal != caller.principal:
            # Asked before it is said whether there is one.
            self._grants.require(tx, caller, "job.manage", f"job/{job_id}")
        return self._jobs.get(tx, caller.tenant, job_id)


def _info(row: Row[JobRecord], result: dict[str, Any] | None = None) -> JobInfo:
    record = row.record
    return JobInfo(
        job=row.id,
        function=record.function,
        principal=record.principal,
        state=record.state,
        percent=record.percent,
        attempts=record.attempts,
        created_at=record.created_at,
        updated_at=record.updated_at,
        error=record.error,
        result=result,
    )
