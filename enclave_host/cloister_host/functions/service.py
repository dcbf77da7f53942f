"""Deploying and managing functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import UNSET

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, OpenError
from cloister.function.bundle import BUNDLE_CONTEXT, Bundle, read_bundle
from cloister.jose import b64url_decode
from cloister_host.audit import Audit
from cloister_host.functions.invocation import Invocation
from cloister_host.functions.logs import FunctionLogs
from cloister_host.functions.messages import (
    Alias,
    Debug,
    Deploy,
    Deployed,
    Disable,
    FunctionList,
    GrantNeeded,
    Invoke,
    LogList,
    LogPage,
    Rollback,
    RolledBack,
)
from cloister_host.functions.ports import Act
from cloister_host.functions.registry import Registry
from cloister_host.functions.sandbox import Job
from cloister_host.functions.signers import Signers
from cloister_host.functions.workers import Pool, WorkerKey
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.manager import KeyManager
from cloister_host.operations import Operation, Page
from cloister_host.policy import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Tx

__all__ = ["FunctionService"]


class FunctionService:
    """The functions of the caller's tenant."""

    def __init__(
        self,
        *,
        registry: Registry,
        invocation: Invocation,
        pool: Pool,
        keys: KeyManager,
        signers: Signers,
        logs: FunctionLogs,
        grants: Grants,
        quorum: Quorum,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._invocation = invocation
        self._pool = pool
        self._keys = keys
        self._signers = signers
        self._logs = logs
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "function.deploy": Operation(Deploy, self.deploy, effect=True, staged=True),
            "function.alias": Operation(Alias, self.alias, effect=True),
            "function.rollback": Operation(Rollback, self.rollback, effect=True),
            "function.debug": Operation(Debug, self.debug, effect=True),
            "function.logs": Operation(LogPage, self.logs, effect=False),
            "function.disable": Operation(Disable, self.disable, effect=True),
            "function.list": Operation(Page, self.list, effect=False),
            "function.invoke": Operation(Invoke, self._invocation.invoke, effect=True, staged=True),
        }

    def deploy(self, caller: Caller, request: Deploy, act: Act) -> Deployed:
        """Register a bundle, after its code has been loaded once in the sandbox and its manifest compared.

        A new digest has no rights until it is granted some.

        Raises:
            ConfigurationError: The bundle is not valid, or one of its wheels is not pinned.
            FunctionError: The code does not load or declares something else than the manifest.
            DeniedError: The caller may not deploy it, or the tenant wants a signature that is not there.
            QuorumNeededError: Others have to approve this digest.
        """
        with act.begin() as tx:
            bundle = self._bundle(tx, caller, request)
            name = bundle.manifest.name
            quorum = ("function.deploy", f"function/{name}", request_digest("function.deploy", request))
            about = {"digest": bundle.digest, "alias": request.alias or ""}
            self._require(tx, caller, name, request.alias)
            self._signers.check_bundle(tx, caller, bundle, request.signature)
            self._quorum.check(tx, caller, *quorum, detail=about)
        job = Job.of(caller.tenant, bundle)
        key = WorkerKey(caller.tenant, bundle.digest, "")
        with self._pool.worker(key, lambda: (job, bundle.manifest), check=True) as worker:
            worker.retire()
            notes = worker.notes
        with act.begin() as tx:
            self._require(tx, caller, name, request.alias)
            self._quorum.require(tx, caller, *quorum, detail=about)
            signed_by = self._signers.check_bundle(tx, caller, bundle, request.signature)
            self._registry.add(tx, caller, bundle, signed_by=signed_by, at=int(self._clock()))
            if request.alias is not None:
                self._registry.point(tx, caller.tenant, name, request.alias, bundle.digest)
            self._record(tx, caller, "function.deploy", name, **about, signed_by=signed_by)
            result = Deployed(
                name=name,
                digest=bundle.digest,
                alias=request.alias,
                needs=[GrantNeeded(action=n.action, resource=n.resource) for n in bundle.manifest.needs],
                notes=notes,
                signed_by=signed_by,
            )
            act.finish(tx, result)
        return result

    def alias(self, caller: Caller, request: Alias, tx: Tx) -> Alias:
        """Point an alias to another deployed digest: how traffic moves forward and back."""
        self._grants.require(tx, caller, "function.manage", f"function/{request.function}")
        before = self._registry.point(tx, caller.tenant, request.function, request.alias, request.digest)
        self._record(
            tx,
            caller,
            "function.alias",
            request.function,
            alias=request.alias,
            digest=request.digest,
            before=before,
        )
        return request

    def rollback(self, caller: Caller, request: Rollback, tx: Tx) -> RolledBack:
        """Point an alias back to where it pointed before its last move."""
        name, alias = request.function, request.alias
        self._grants.require(tx, caller, "function.manage", f"function/{name}")
        digest, before = self._registry.roll_back(tx, caller.tenant, name, alias)
        self._record(tx, caller, "function.rollback", name, alias=alias, digest=digest, before=before)
        return RolledBack(function=name, alias=alias, digest=digest, before=before)

    def debug(self, caller: Caller, request: Debug, tx: Tx) -> Debug:
        """Let the text of failures leave for some minutes; receipts of that time say so.

        It is a right of its own: what a function raises can hold what was sealed.
        """
        self._grants.require(tx, caller, "function.debug", f"function/{request.function}")
        until = int(self._clock()) + 60 * request.minutes if request.minutes else 0
        self._registry.set_debug(tx, caller.tenant, request.function, until=until)
        self._record(tx, caller, "function.debug", request.function, minutes=request.minutes)
        return request

    def logs(self, caller: Caller, request: LogPage, tx: Tx) -> LogList:
        """List what a function logged, sealed under the key that its manifest names."""
        self._grants.require(tx, caller, "function.logs", f"function/{request.function}")
        found = self._logs.read(tx, caller.tenant, request.function, after=request.after, limit=request.limit)
        self._record(tx, caller, "function.logs", request.function)
        return LogList(entries=found, next=found[-1].entry if len(found) == request.limit else "")

    def disable(self, caller: Caller, request: Disable, tx: Tx) -> Disable:
        """Stop a function at once, or let it run again."""
        self._grants.require(tx, caller, "function.manage", f"function/{request.function}")
        self._registry.set_disabled(tx, caller.tenant, request.function, disabled=request.disabled)
        self._record(tx, caller, "function.disable", request.function, disabled=int(request.disabled))
        return request

    def list(self, caller: Caller, request: Page, tx: Tx) -> FunctionList:
        """List functions with their aliases and bundles."""
        self._grants.require(tx, caller, "function.manage", "function/*")
        found = self._registry.list(tx, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="function.list", resource="function/*")
        return FunctionList(functions=found, next=found[-1].name if len(found) == request.limit else "")

    def _bundle(self, tx: Tx, caller: Caller, request: Deploy) -> Bundle:
        """What is to be deployed; whatever else is sealed under the tenant's keys is no bundle."""
        try:
            if (request.bundle is UNSET) == (request.sealed is UNSET):
                raise ConfigurationError("deploying takes either bundle or sealed")
            if request.bundle is not UNSET:
                return read_bundle(b64url_decode(request.bundle))
            sealed = Sealed(str(request.sealed))
            opened = self._keys.open_granted(
                tx, caller.tenant, [sealed], [BUNDLE_CONTEXT], keys=frozenset({sealed.key})
            )
            if isinstance(opened[0], bytes):
                return read_bundle(opened[0])
        except (ValueError, OpenError):
            pass
        raise ConfigurationError("this is no bundle", hint="deploy it with `cloister function deploy`")

    def _require(self, tx: Tx, caller: Caller, name: str, alias: str | None) -> None:
        self._grants.require(tx, caller, "function.deploy", f"function/{name}")
        if alias is not None:
            # Moving traffic is another right than bringing code.
            self._grants.require(tx, caller, "function.manage", f"function/{name}")

    def _record(self, tx: Tx, caller: Caller, act: str, name: str, **detail: str | int) -> None:
        self._audit.record(tx, caller, act=act, resource=f"function/{name}", detail=detail)
