"""A tenant's policies: created once, read at every use, never changed but for their key version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Row, Table, Tx
from cloister_host.tokenization.compiler import CompiledPolicy, compile_policy
from cloister_host.tokenization.messages import PolicyCreate, PolicyInfo, PolicyList, PolicyRotate
from cloister_host.tokenization.policies import PolicyDocument

__all__ = ["Policies", "Policy"]

_compile = lru_cache(maxsize=512)(compile_policy)


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `policies` row."""

    document: PolicyDocument
    key_version: int
    created_at: int


POLICIES: Final = Table("policies", PolicyRecord, "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy of a tenant, ready for use.

    Attributes:
        key_version: The current one; older ones still undo their tokens.
    """

    tenant: str
    name: str
    compiled: CompiledPolicy
    key_version: int

    @property
    def resource(self) -> str:
        """What grants call it."""
        return f"policy/{self.name}"

    def key(self, tx: Tx, version: int | None = None) -> bytes:
        """The key of one version, derived from the tenant's KEK.

        Raises:
            ConfigurationError: There is no such version.
        """
        chosen = self.key_version if version is None else version
        if not 1 <= chosen <= self.key_version:
            raise ConfigurationError("the policy has no such key version")
        return tx.derived_key(self.tenant, f"token.{self.name}.{chosen}").reveal()


class Policies:
    """Creates, lists, rotates and finds policies."""

    def __init__(self, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]) -> None:
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "policy.create": Operation(PolicyCreate, self.create, effect=True),
            "policy.list": Operation(Page, self.list, effect=False),
            "policy.rotate": Operation(PolicyRotate, self.rotate, effect=True),
        }

    def create(self, caller: Caller, request: PolicyCreate, tx: Tx) -> PolicyInfo:
        """Create a policy; it never changes, since tokens hang on it.

        Raises:
            ExistsError: The name is taken.
            ConfigurationError: The policy is not safe; the message has the arithmetic.
            QuorumNeededError: Others have to approve it.
        """
        resource = f"policy/{request.policy}"
        self._grants.require(tx, caller, "policy.manage", resource)
        document = msgspec.convert(request, PolicyDocument, from_attributes=True)
        _compile(document)
        self._quorum.require(
            tx,
            caller,
            "policy.change",
            resource,
            request_digest("policy.create", request),
            detail={"policy": request.policy, "plan": document.plan},
        )
        record = PolicyRecord(document=document, key_version=1, created_at=int(self._clock()))
        row = tx.insert(POLICIES, caller.tenant, request.policy, record)
        self._audit.record(tx, caller, act="policy.create", resource=resource, detail={"plan": document.plan})
        return _info(row)

    def list(self, caller: Caller, request: Page, tx: Tx) -> PolicyList:
        """List the policies."""
        self._grants.require(tx, caller, "policy.manage", "policy/*")
        rows = tx.scan(POLICIES, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="policy.list", resource="policy/*")
        return PolicyList(
            policies=[_info(row) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def rotate(self, caller: Caller, request: PolicyRotate, tx: Tx) -> PolicyInfo:
        """Start a new key version; tokens of the older ones stay good, and can be retokenized.

        Raises:
            ConfigurationError: There is no such policy, or its tokens hang on no key.
        """
        resource = f"policy/{request.policy}"
        self._grants.require(tx, caller, "policy.manage", resource)
        row = self._row(tx, caller, request.policy)
        if row.record.document.plan != "ff1":
            raise ConfigurationError(
                f"a policy of plan {row.record.document.plan} has no key to rotate",
                hint="vault tokens are random; for new hashes or masks create another policy",
            )
        record = msgspec.structs.replace(row.record, key_version=row.record.key_version + 1)
        rotated = tx.put(POLICIES, caller.tenant, request.policy, record)
        self._audit.record(
            tx, caller, act="policy.rotate", resource=resource, detail={"key_version": record.key_version}
        )
        return _info(rotated)

    def find(self, tx: Tx, caller: Caller, name: str) -> Policy:
        """A policy of the caller's tenant. Rights are the service's to check, before.

        Raises:
            ConfigurationError: There is no such policy.
        """
        record = self._row(tx, caller, name).record
        return Policy(
            tenant=caller.tenant,
            name=name,
            compiled=_compile(record.document),
            key_version=record.key_version,
        )

    def _row(self, tx: Tx, caller: Caller, name: str) -> Row[PolicyRecord]:
        row = tx.get(POLICIES, caller.tenant, name)
        if row is None:
            raise ConfigurationError("there is no such policy", hint="create it with policy.create")
        return row


def _info(row: Row[PolicyRecord]) -> PolicyInfo:
    compiled = _compile(row.record.document)
    return PolicyInfo(
        policy=row.id,
        plan=row.record.document.plan,
        document=row.record.document,
        arithmetic=compiled.arithmetic,
        key_version=row.record.key_version,
        created_at=row.record.created_at,
    )
