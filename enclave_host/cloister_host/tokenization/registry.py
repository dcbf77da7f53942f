"""A tenant's policies: created once, read at every use, never changed but for their key version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.keyring import HeldKey, KeyRing
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Row, Table, Tx
from cloister_host.tokenization.compiler import CompiledPolicy, compile_policy
from cloister_host.tokenization.messages import (
    PolicyChecked,
    PolicyCreate,
    PolicyInfo,
    PolicyList,
    PolicyName,
)
from cloister_host.tokenization.policies import PolicyDocument

__all__ = ["Policies", "Policy", "TokenKey"]

_compile = lru_cache(maxsize=512)(compile_policy)


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `policies` row."""

    document: PolicyDocument
    key_version: int
    created_at: int


POLICIES: Final = Table("policies", PolicyRecord, "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """One version of the key that tokens of a policy hang on."""

    version: int
    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy of a tenant, ready for use.

    Attributes:
        key_version: The current one; older ones still undo their tokens.
        ring: The tenant's keys, for a policy whose tokens hang on one of them.
    """

    tenant: str
    name: str
    compiled: CompiledPolicy
    key_version: int
    ring: KeyRing = field(repr=False)

    @property
    def resource(self) -> str:
        """What grants call it."""
        return f"policy/{self.name}"

    @property
    def has_key(self) -> bool:
        """Whether its tokens hang on a key of the tenant, rather than on one of its own."""
        return self.compiled.document.key is not None

    def protecting(self, tx: Tx) -> TokenKey:
        """The key that new tokens are made with.

        Raises:
            ConfigurationError: No version of the tenant's key may protect.
        """
        name = self.compiled.document.key
        if name is None:
            return self.processing(tx)
        held = self.ring.current(tx, self.tenant, name, "tokenize")
        return TokenKey(version=int(held.kid.rpartition(".")[2]), octets=self._derived(held))

    def processing(self, tx: Tx, version: int | None = None, *, rescue: bool = False) -> TokenKey:
        """The key that undoes the tokens of one version; the current one, if none is named.

        Args:
            tx: The transaction.
            version: As `key_version` said when the tokens were made.
            rescue: They are only moved to another version or policy.

        Raises:
            ConfigurationError: There is no such version.
            OpenError: Its state allows nothing any more.
        """
        chosen = self.key_version if version is None else version
        name = self.compiled.document.key
        if name is not None:
            held = self.ring.version(tx, self.tenant, f"{name}.{chosen}", "tokenize", rescue=rescue)
            return TokenKey(version=chosen, octets=self._derived(held))
        if not 1 <= chosen <= self.key_version:
            raise ConfigurationError("the policy has no such key version")
        octets = tx.derived_key(self.tenant, f"token.{self.name}.{chosen}").reveal()
        return TokenKey(version=chosen, octets=octets)

    def _derived(self, held: HeldKey) -> bytes:
        """Each policy has a key of its own from the tenant's: equal values differ between policies."""
        info = f"cloister.token.{self.name}.v1".encode()
        return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(held.octets.reveal())


class Policies:
    """Creates, lists, rotates and finds policies."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        grants: Grants,
        quorum: Quorum,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._ring = ring
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "policy.create": Operation(PolicyCreate, self.create, effect=True),
            "policy.list": Operation(Page, self.list, effect=False),
            "policy.show": Operation(PolicyName, self.show, effect=False),
            "policy.check": Operation(PolicyDocument, self.check, effect=False),
            "policy.rotate": Operation(PolicyName, self.rotate, effect=True),
        }

    def create(self, caller: Caller, request: PolicyCreate, tx: Tx) -> PolicyInfo:
        """Create a policy; it never changes, since tokens hang on it.

        Raises:
            ExistsError: The name is taken.
            ConfigurationError: The policy is not safe; the message has the arithmetic. Or its key is none.
            QuorumNeededError: Others have to approve it.
        """
        resource = f"policy/{request.policy}"
        self._grants.require(tx, caller, "policy.manage", resource)
        document = msgspec.convert(request, PolicyDocument, from_attributes=True)
        _compile(document)
        if document.key is not None:
            self._ring.current(tx, caller.tenant, document.key, "tokenize")
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
        return self._info(tx, row)

    def list(self, caller: Caller, request: Page, tx: Tx) -> PolicyList:
        """List the policies."""
        self._grants.require(tx, caller, "policy.manage", "policy/*")
        rows = tx.scan(POLICIES, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="policy.list", resource="policy/*")
        return PolicyList(
            policies=[self._info(tx, row) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def show(self, caller: Caller, request: PolicyName, tx: Tx) -> PolicyInfo:
        """Show one policy.

        Raises:
            ConfigurationError: There is no such policy.
        """
        resource = f"policy/{request.policy}"
        self._grants.require(tx, caller, "policy.manage", resource)
        row = self._row(tx, caller, request.policy)
        self._audit.record(tx, caller, act="policy.show", resource=resource)
        return self._info(tx, row)

    def check(self, caller: Caller, request: PolicyDocument, tx: Tx) -> PolicyChecked:
        """Compile a policy and keep nothing.

        Raises:
            ConfigurationError: It is not safe; the message has the arithmetic, the hint the way out.
        """
        self._grants.require(tx, caller, "policy.manage", "policy/*")
        compiled = _compile(request)
        self._audit.record(tx, caller, act="policy.check", resource="policy/*")
        return PolicyChecked(plan=request.plan, domain=str(compiled.domain), arithmetic=compiled.arithmetic)

    def rotate(self, caller: Caller, request: PolicyName, tx: Tx) -> PolicyInfo:
        """Start a new key version; tokens of the older ones stay good, and can be retokenized.

        Raises:
            ConfigurationError: There is no such policy, or its tokens hang on no key.
        """
        resource = f"policy/{request.policy}"
        self._grants.require(tx, caller, "policy.manage", resource)
        row = self._row(tx, caller, request.policy)
        if row.record.document.key is not None:
            raise ConfigurationError(
                "the tokens of this policy hang on a key", hint=f"rotate the key {row.record.document.key}"
            )
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
        return self._info(tx, rotated)

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
            key_version=self._key_version(tx, caller.tenant, record),
            ring=self._ring,
        )

    def _key_version(self, tx: Tx, tenant: str, record: PolicyRecord) -> int:
        if record.document.key is None:
            return record.key_version
        return self._ring.newest(tx, tenant, record.document.key)

    def _info(self, tx: Tx, row: Row[PolicyRecord]) -> PolicyInfo:
        compiled = _compile(row.record.document)
        return PolicyInfo(
            policy=row.id,
            plan=row.record.document.plan,
            document=row.record.document,
            domain=str(compiled.domain),
            arithmetic=compiled.arithmetic,
            key_version=self._key_version(tx, row.tenant, row.record),
            created_at=row.record.created_at,
        )

    def _row(self, tx: Tx, caller: Caller, name: str) -> Row[PolicyRecord]:
        row = tx.get(POLICIES, caller.tenant, name)
        if row is None:
            raise ConfigurationError("there is no such policy", hint="create it with policy.create")
        return row
