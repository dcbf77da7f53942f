"""Jobs as the store knows them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace
from sqlalchemy import text

from cloister.errors import ConfigurationError, LimitError
from cloister.jose import b64url_encode
from cloister_host.functions.messages import Invoke
from cloister_host.hints import MENDED_AT_ONCE
from cloister_host.identity.caller import Caller, Subject
from cloister_host.store import Row, Table, TamperedError, Tx

__all__ = ["JOBS", "JobError", "JobRecord", "Jobs", "State"]

KEPT_SECONDS: Final = 24 * 3600
LEASE_SECONDS: Final = 30
MAX_ATTEMPTS: Final = 3
MAX_JOBS: Final = 10_000
ID_BYTES: Final = 16

State = Literal["waiting", "running", "done", "failed", "cancelled", "lost"]


class JobError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a job failed."""

    code: str
    message: str
    hint: str


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `jobs` row; its id is the job's, its secret part the request and then the result.

    Attributes:
        function: `name@digest`: what it was started as, wherever the alias points now.
        request: Digest of the sealed request that started it, for its receipt.
        repeatable: Whether it may run again after its host died.
        cancel: Whether somebody wants it to end.
        purpose: What it was started for, as conditions of grants ask.
        due: While it waits, when it may run; while it runs, when its host counts as dead; then when it
            is forgotten (epoch seconds).
    """

    function: str
    principal: str
    kind: Subject
    correlation_id: str
    request: str
    repeatable: bool
    state: State
    percent: int
    attempts: int
    cancel: bool
    purpose: str = ""
    created_at: int
    updated_at: int
    due: int
    error: JobError | None = None


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The secret part of a job's row until it has ended: what was asked for.

    Attributes:
        claims: What the issuer said of who asked, when it was asked; conditions of grants go by it.
    """

    request: Invoke
    claims: dict[str, Any] = {}


JOBS: Final = Table("jobs", JobRecord, "job")

_QUEUE: Final = text("INSERT INTO jobs_due (due, tenant, id) VALUES (:due, :tenant, :id)")
_UNQUEUE: Final = text("DELETE FROM jobs_due WHERE tenant = :tenant AND id = :id")
_TENANTS: Final = text("SELECT DISTINCT tenant FROM jobs_due WHERE due <= :now")
_DUE: Final = text(
    "SELECT id FROM jobs_due WHERE tenant = :tenant AND due <= :now ORDER BY due, id LIMIT :limit"
)
_HINTS: Final = text(
    "SELECT j.id, d.due FROM jobs j LEFT JOIN jobs_due d ON d.tenant = j.tenant AND d.id = j.id"
    " WHERE j.tenant = :tenant AND j.id > :after"
    " AND (d.due IS NULL OR j.content LIKE :waiting OR j.content LIKE :running) ORDER BY j.id LIMIT :limit"
)
_COUNT: Final = text("SELECT COUNT(*) FROM jobs_due WHERE tenant = :tenant")


class Jobs:
    """Rows of jobs, and the index of when to look at each. The index is a hint; the content decides.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    @property
    def now(self) -> int:
        """Epoch seconds."""
        return int(self._clock())

    def add(
        self, tx: Tx, caller: Caller, request: Invoke, *, digest: str, repeatable: bool
    ) -> Row[JobRecord]:
        """Write a new job.

        Raises:
            LimitError: The tenant has too many.
        """
        if int(tx.execute(_COUNT, {"tenant": caller.tenant}).scalar_one()) >= MAX_JOBS:
            raise LimitError(f"a tenant has at most {MAX_JOBS:,} jobs", hint="results are kept for a day")
        record = JobRecord(
            function=request.function,
            principal=caller.principal,
            kind=caller.kind,
            correlation_id=caller.correlation_id,
            request=digest,
            repeatable=repeatable,
            state="waiting",
            percent=0,
            attempts=0,
            cancel=False,
            purpose=caller.purpose,
            created_at=self.now,
            updated_at=self.now,
            due=self.now,
        )
        asked = Asked(request, dict(caller.claims))
        job_id = b64url_encode(os.urandom(ID_BYTES))
        row = tx.insert(JOBS, caller.tenant, job_id, record, secret=msgspec.json.encode(asked))
        tx.execute(_QUEUE, {"due": record.due, "tenant": caller.tenant, "id": job_id})
        return row

    def get(self, tx: Tx, tenant: str, job_id: str) -> Row[JobRecord]:
        """Read a job.

        Raises:
            ConfigurationError: There is none by this id, or it has been forgotten.
        """
        row = tx.get(JOBS, tenant, job_id)
        if row is None:
            raise ConfigurationError("there is no such job", hint="results are kept for a day")
        return row

    def due(self, tx: Tx, busy: Callable[[str], int], *, limit: int) -> list[tuple[str, str]]:
        """Jobs to look at, tenant and id: those of tenants that keep this host least busy first."""
        tenants = [str(row[0]) for row in tx.execute(_TENANTS, {"now": self.now}).all()]
        return [
            (tenant, str(row[0]))
            for tenant in sorted(tenants, key=busy)
            for row in tx.execute(_DUE, {"tenant": tenant, "now": self.now, "limit": limit}).all()
        ]

    def look(self, tx: Tx, tenant: str, job_id: str) -> Row[JobRecord] | None:
        """A job, if it is due. One of a tenant that is sealed off waits until it is open again.

        Raises:
            TamperedError: The host did not write it so.
        """
        if not tx.is_open(tenant):
            return None
        row = tx.get(JOBS, tenant, job_id)
        if row is None:
            tx.execute(_UNQUEUE, {"tenant": tenant, "id": job_id})
            return None
        if row.record.due > self.now:
            self._requeue(tx, row)
            return None
        return row

    def postpone(self, tx: Tx, tenant: str, job_id: str, *, seconds: int) -> None:
        """Look at a job later; its row stays as it is."""
        tx.execute(_UNQUEUE, {"tenant": tenant, "id": job_id})
        tx.execute(_QUEUE, {"due": self.now + seconds, "tenant": tenant, "id": job_id})

    def mend(self, tx: Tx, tenant: str, after: str) -> str:
        """Look again where a tenant's jobs say, whatever the index has; see `Hints`."""
        page = {"tenant": tenant, "after": after, "limit": MENDED_AT_ONCE}
        states = {"waiting": '%"state":"waiting"%', "running": '%"state":"running"%'}
        found = tx.execute(_HINTS, {**page, **states}).all()
        for job_id, due in map(tuple, found):
            with suppress(TamperedError):  # whoever looks at it finds that out, and others must not wait
                row = tx.get(JOBS, tenant, str(job_id))
                if row is not None and row.record.due != due:
                    self._requeue(tx, row)
        return str(found[-1][0]) if len(found) == MENDED_AT_ONCE else ""

    def lease(self, tx: Tx, row: Row[JobRecord]) -> Row[JobRecord]:
        """Take a job for one run."""
        return self.write(
            tx,
            row,
            state="running",
            attempts=row.record.attempts + 1,
            due=self.now + LEASE_SECONDS,
            secret=tx.reveal(JOBS, row).reveal(),
        )

    def settle(
        self, tx: Tx, row: Row[JobRecord], state: State, *, result: bytes | None = None, **changes: Any
    ) -> Row[JobRecord]:
        """Write down how a job ended; the request it came with is forgotten."""
        percent = 100 if state == "done" else row.record.percent
        return self.write(
            tx, row, state=state, percent=percent, due=self.now + KEPT_SECONDS, secret=result, **changes
        )

    def write(self, tx: Tx, row: Row[JobRecord], *, secret: bytes | None, **changes: Any) -> Row[JobRecord]:
        """Write a job over what was read, and note when to look at it again."""
        record = replace(row.record, updated_at=self.now, **changes)
        written = tx.put(JOBS, row.tenant, row.id, record, secret=secret)
        self._requeue(tx, written)
        return written

    def _requeue(self, tx: Tx, row: Row[JobRecord]) -> None:
        tx.execute(_UNQUEUE, {"tenant": row.tenant, "id": row.id})
        tx.execute(_QUEUE, {"due": row.record.due, "tenant": row.tenant, "id": row.id})

    def forget(self, tx: Tx, row: Row[JobRecord]) -> None:
        """Delete a job."""
        tx.delete(JOBS, row.tenant, row.id)
        tx.execute(_UNQUEUE, {"tenant": row.tenant, "id": row.id})
