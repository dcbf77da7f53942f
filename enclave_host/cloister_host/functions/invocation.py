"""One invocation: authorise and open, run without a transaction, release and remember in another.

What the caller gets, the tokens behind it, the delivery it sets off, the audit entry and the answer to a
repeated request are written together or not at all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Any, Final

import rfc8785
from msgspec.structs import replace

from cloister.envelope import Sealed, author_of, open_authored
from cloister.errors import CloisterError, ConfigurationError, FunctionError, LimitError, OpenError
from cloister.function.manifest import Manifest
from cloister.function.outputs import SealedUnder
from cloister.jose import b64url_encode
from cloister_host.audit import Audit, Outcome, Recorded
from cloister_host.deliveries.outbox import Outbox
from cloister_host.egress import Egress, EgressDoor
from cloister_host.fairness import aside
from cloister_host.functions.budgets import AnswerBudgets, Charge
from cloister_host.functions.logs import FunctionLogs
from cloister_host.functions.messages import BatchInvoked, Invoke, Invoked, RowError
from cloister_host.functions.padding import answer_length, next_tick, padding
from cloister_host.functions.ports import Act, ReceiptIssuer
from cloister_host.functions.registry import Registry, Resolved
from cloister_host.functions.release import Release, kids
from cloister_host.functions.rows import Rows
from cloister_host.functions.sandbox import Job
from cloister_host.functions.signers import Signers
from cloister_host.functions.watch import Watch
from cloister_host.functions.workers import Pool, WorkerKey
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.manager import KeyManager
from cloister_host.policy import Grants
from cloister_host.secrets import Secrets, SecretValue
from cloister_host.store import Tx

__all__ = ["Invocation"]

LONGEST_WAIT_SECONDS: Final = 300
MAX_DELIVERIES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What the first transaction found."""

    caller: Caller
    function: Caller
    resolved: Resolved
    rows: Rows = field(repr=False)
    secrets: Mapping[str, SecretValue] = field(repr=False)
    kids: set[str]
    watch: Watch
    charge: Charge | None

    @property
    def manifest(self) -> Manifest:
        return self.resolved.manifest

    @property
    def resource(self) -> str:
        return f"function/{self.resolved.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """What the worker said, and how the run went."""

    returned: Any = field(repr=False)
    door: EgressDoor
    milliseconds: int


class Invocation:
    """Runs confidential functions for callers with the right `invoke`."""

    def __init__(
        self,
        *,
        registry: Registry,
        pool: Pool,
        grants: Grants,
        audit: Audit,
        keys: KeyManager,
        secrets: Secrets,
        release: Release,
        egress: Egress,
        outbox: Outbox,
        receipts: ReceiptIssuer,
        budgets: AnswerBudgets,
        signers: Signers,
        logs: FunctionLogs,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._grants = grants
        self._audit = audit
        self._keys = keys
        self._secrets = secrets
        self._release = release
        self._egress = egress
        self._outbox = outbox
        self._receipts = receipts
        self._budgets = budgets
        self._signers = signers
        self._logs = logs
        self._clock = clock
        self._sleep = sleep

    def invoke(self, caller: Caller, request: Invoke, act: Act) -> Invoked | BatchInvoked:
        """Call a function once, or on a batch of rows, while the caller waits; see `run`.

        Raises:
            ConfigurationError: Also, it may take longer than a caller waits.
        """
        return self.run(caller, request, act, Watch(), longest_seconds=LONGEST_WAIT_SECONDS)

    def run(
        self, caller: Caller, request: Invoke, act: Act, watch: Watch, *, longest_seconds: int
    ) -> Invoked | BatchInvoked:
        """Call a function once, or on a batch of rows.

        Args:
            caller: Who asks.
            request: Function and inputs.
            act: Transactions around the run.
            watch: Sees the run, and may end it.
            longest_seconds: Functions that may take longer are refused.

        Raises:
            DeniedError: The caller may not invoke it, or its digest lacks a grant it needs.
            ConfigurationError: There is no such function, or the inputs do not fit it.
            OpenError: A sealed input did not open (of a batch: that row has the error).
            FunctionError: The function failed, or its result is not in its output class.
            LimitError: It took too long or too much memory, or the budget of answers is spent.
            UnavailableError: An origin it needs did not answer, or every worker is busy.
        """
        with act.begin() as tx:
            prepared = self._prepare(tx, caller, request, watch)
            act.length = answer_length(prepared.manifest.output, prepared.rows.count)
            if prepared.manifest.limits.timeout_seconds > longest_seconds:
                raise ConfigurationError(
                    f"this function may take longer than {longest_seconds} seconds",
                    hint="start it as a job: `cloister function start`",
                )
            if not prepared.manifest.egress:
                # Nobody outside sees anything of this before the transaction of the result is durable.
                tx.defer_durability()
        started = time.monotonic()
        try:
            ran = self._run(prepared, act)
            with act.begin() as tx:
                result = self._finish(tx, prepared, ran, act.request_digest)
                act.finish(tx, result)
        except CloisterError as error:
            self._record_failure(prepared, error, act)
            self._pad(prepared, started)
            raise
        if prepared.manifest.delivery is not None:
            self._outbox.wake()
        self._pad(prepared, started)
        return result

    def _pad(self, prepared: _Prepared, started: float) -> None:
        """Let time pass until the next tick that the function declared, whatever came of it."""
        if prepared.manifest.limits.pad_milliseconds:
            took = time.monotonic() - started
            with aside():
                self._sleep(next_tick(took, prepared.manifest.limits.pad_milliseconds) - took)

    def _prepare(self, tx: Tx, caller: Caller, request: Invoke, watch: Watch) -> _Prepared:
        # (1) May the caller invoke it? Asked first, so that a refusal tells nothing about what exists.
        name = request.function.partition("@")[0]
        self._grants.require(
            tx,
            caller,
            "invoke",
            f"function/{name}",
            digest=lambda: self._registry.digest(tx, caller.tenant, request.function),
        )
        resolved = self._registry.resolve(tx, caller.tenant, request.function)
        # (2) Has this very code every right it needs?
        watch.debug = resolved.debug_until > self._clock()
        manifest, function = resolved.manifest, caller.as_function(resolved.digest)
        for need in manifest.needs:
            self._grants.require(tx, function, need.action, need.resource)
        # (3) Inputs as declared, sealed ones opened under the one key that is named for them.
        rows = Rows.gather(manifest, request)
        if manifest.delivery is not None and len(rows.live) > MAX_DELIVERIES:
            raise LimitError(
                "the batch would set off too many deliveries",
                hint=f"send at most {MAX_DELIVERIES:,} rows at a time",
            )
        used = self._open(tx, function, rows)
        # (4) Within its budget of answers: taken now, so that a failure, too, is an answer.
        charge = self._charge(tx, caller, resolved, rows)
        names = {secret for rule in manifest.egress.values() for secret in rule.secret_names}
        prepared = _Prepared(
            caller=caller,
            function=function,
            resolved=resolved,
            rows=rows,
            secrets={secret: self._secrets.read(tx, function, secret) for secret in sorted(names)},
            kids=used,
            watch=watch,
            charge=charge,
        )
        # (5) Effects outside the store are announced before they can happen.
        if manifest.egress:
            self._record(tx, prepared, "intent")
        return prepared

    def _charge(self, tx: Tx, caller: Caller, resolved: Resolved, rows: Rows) -> Charge | None:
        budget = resolved.manifest.budget
        if budget is None or not rows.live:
            return None
        try:
            charge, over = self._budgets.charge(
                tx, caller, resolved.name, budget, rows.subjects(budget.subject)
            )
            if over and not resolved.manifest.batch:
                raise LimitError(
                    f"there are {budget.per_subject:,} answers about a subject a {budget.period}",
                    hint=f"ask in the next {budget.period}",
                )
        except LimitError:
            self._audit.refuse(
                tx,
                caller,
                act="function.invoke",
                resource=f"function/{resolved.name}",
                detail={"digest": resolved.digest, "error": LimitError.code},
            )
            raise
        rows.leave_out(over, LimitError.code)
        return charge

    def _open(self, tx: Tx, function: Caller, rows: Rows) -> set[str]:
        used: set[str] = set()
        for given in rows.manifest.inputs:
            if given.sealed is None:
                continue
            column = rows.sealed(given)
            texts = [value if isinstance(value, str) else "" for value in column]
            contexts = rows.context(given.sealed.context)
            opened = self._keys.open_values(tx, function, given.sealed.key, texts, contexts)
            if given.sealed.authenticated:
                opened = [
                    value if isinstance(value, OpenError) or Sealed(text).alg == "A256KW" else OpenError()
                    for text, value in zip(texts, opened, strict=True)
                ]
            if given.sealed.sealed_by:
                opened = self._authored(tx, function, given.sealed, opened, contexts)
            used |= kids(
                [t for t, value in zip(texts, opened, strict=True) if not isinstance(value, OpenError)]
            )
            rows.replace(given, opened)
            if not rows.manifest.batch and rows.errors:
                raise _row_failure(rows.errors[0], given.name)
        return used

    def _authored(
        self,
        tx: Tx,
        function: Caller,
        sealed: SealedUnder,
        opened: Sequence[Any],
        contexts: Sequence[Mapping[str, str] | None] | None,
    ) -> list[Any]:
        """What one of the accepted signers has signed for this key and context; an error for the rest."""
        signers = self._signers.keys(tx, function.tenant, sealed.sealed_by, use="author")

        def value(text: Any, context: Mapping[str, str] | None) -> Any:
            try:
                signer = signers.get(author_of(text))
                if signer is None:
                    return OpenError()
                return open_authored(text, signer, tenant=function.tenant, key=sealed.key, context=context)
            except OpenError:
                return OpenError()

        return [value(text, context) for text, context in zip(opened, contexts or repeat(None), strict=False)]

    def _run(self, prepared: _Prepared, act: Act) -> _Ran:
        resolved, tenant = prepared.resolved, prepared.caller.tenant
        door = self._egress.door(
            tenant=tenant, digest=resolved.digest, rules=prepared.manifest.egress, secrets=prepared.secrets
        )
        if prepared.manifest.batch and not prepared.rows.live:
            return _Ran(returned=[], door=door, milliseconds=0)

        def load() -> tuple[Job, Manifest]:
            with act.begin() as tx:
                bundle = self._registry.bundle(tx, tenant, resolved.name, resolved.digest)
            return Job.of(tenant, bundle), bundle.manifest

        key = WorkerKey(tenant, resolved.digest, prepared.caller.principal)
        with self._pool.worker(key, load) as worker:
            started = time.monotonic()
            returned = worker.call(prepared.rows.inputs(), door, prepared.watch)
            took = next_tick(time.monotonic() - started, prepared.manifest.limits.pad_milliseconds)
        return _Ran(returned=returned, door=door, milliseconds=int(took * 1000))

    def _finish(self, tx: Tx, prepared: _Prepared, ran: _Ran, request_digest: str) -> Invoked | BatchInvoked:
        rows, manifest = prepared.rows, prepared.manifest
        released = self._release.column(tx, prepared.function, rows, ran.returned)
        deliveries = self._deliver(tx, prepared, released)
        recorded = self._record(tx, prepared, "done", rows=rows.count, failed=len(rows.errors))
        claims, disclosures = self._receipt(prepared, ran, released)
        receipt = self._receipts.issue(
            tx, recorded, request=request_digest, claims=claims, disclosures=disclosures
        )
        self._logs.add(tx, prepared.function, prepared.resolved, prepared.watch.logs, outcome="done")
        if manifest.batch:
            values = rows.spread(released)
            batch = BatchInvoked(
                values=values,
                output=manifest.output.kind,
                errors={str(index): RowError(code=code) for index, code in rows.errors.items()},
                receipt=receipt.to_json(),
                delivery_ids=None if manifest.delivery is None else rows.spread(deliveries),
            )
            return replace(batch, padding=padding(batch, manifest.output, values))
        invoked = Invoked(
            value=released[0],
            output=manifest.output.kind,
            receipt=receipt.to_json(),
            delivery_id=deliveries[0] if deliveries else None,
        )
        return replace(invoked, padding=padding(invoked, manifest.output, released))

    def _deliver(self, tx: Tx, prepared: _Prepared, released: list[Any]) -> list[str]:
        """Write a delivery for each value; rows of a batch that cannot be sent are left out."""
        target, rows = prepared.manifest.delivery, prepared.rows
        if target is None:
            return []
        sent: list[str] = []
        too_large: list[int] = []
        for position, value in enumerate(released):
            try:
                sent.append(self._outbox.add(tx, prepared.function, prepared.resolved.name, target, value))
            except LimitError:
                if not prepared.manifest.batch:
                    raise
                too_large.append(position)
        rows.leave_out(too_large, LimitError.code)
        for position in reversed(too_large):
            del released[position]
        return sent

    def _receipt(
        self, prepared: _Prepared, ran: _Ran, released: Sequence[Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The claims and disclosures of a receipt: what could be guessed only among the latter."""
        rows, manifest = prepared.rows, prepared.manifest
        result, contexts = (
            (released, rows.contexts) if manifest.batch else (released[0], _first(rows.contexts))
        )
        sealed = released if manifest.output.kind == "sealed" else ()
        return (
            {
                "function": prepared.resolved.name,
                "function_digest": prepared.resolved.digest,
                "kids": sorted(prepared.kids | kids(sealed)),
                "output": manifest.output.kind,
                "debug": prepared.watch.debug,
                "sandbox": self._pool.sandbox.level,
                "sandbox_layers": list(self._pool.sandbox.layers),
            },
            {
                # A batch's rows are committed to as one digest; the caller has them.
                "context": _digest(contexts) if manifest.batch else contexts,
                "egress": [asdict(record) for record in ran.door.records],
                "milliseconds": ran.milliseconds,
                "result_digest": _digest(result),
                "rows": {"count": rows.count, "failed": len(rows.errors)},
            },
        )

    def _record(self, tx: Tx, prepared: _Prepared, outcome: Outcome, **detail: str | int) -> Recorded:
        return self._audit.record(
            tx,
            prepared.caller,
            act="function.invoke",
            resource=prepared.resource,
            outcome=outcome,
            detail={"digest": prepared.resolved.digest, **detail},
        )

    def _record_failure(self, prepared: _Prepared, error: CloisterError, act: Act) -> None:
        # With egress nobody knows what an origin did before the failure.
        outcome: Outcome = "unknown" if prepared.manifest.egress else "failed"
        with act.begin() as tx:
            self._record(tx, prepared, outcome, error=error.code)
            self._logs.add(tx, prepared.function, prepared.resolved, prepared.watch.logs, outcome=error.code)
            if prepared.charge is not None and not prepared.watch.ran:
                self._budgets.refund(tx, prepared.caller.tenant, prepared.charge)


def _row_failure(code: str, name: str) -> CloisterError:
    if code == OpenError.code:
        return OpenError()
    return FunctionError(f"the input {name} is not of its declared type", hint="see the function's manifest")


def _first(contexts: Mapping[str, Sequence[str | None]]) -> dict[str, str | None]:
    return {name: column[0] for name, column in contexts.items()}


def _digest(value: Any) -> str:
    """Base64url SHA-256 of canonical JSON (RFC 8785)."""
    return b64url_encode(hashlib.sha256(rfc8785.dumps(value)).digest())
