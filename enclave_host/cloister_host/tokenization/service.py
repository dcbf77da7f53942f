"""Policies and tokens through the API, and for confidential functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from cloister.errors import ConfigurationError, OpenError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.store import Row, Table, Tx
from cloister_host.tokenization.alphabet import TokenShape, alphabet_of
from cloister_host.tokenization.messages import (
    Detokenize,
    PolicyCreate,
    PolicyInfo,
    PolicyList,
    Tokenize,
    Tokens,
    Values,
)
from cloister_host.tokenization.vault import Vault, VaultPlan

__all__ = ["TokenizationService"]


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `policies` row."""

    plan: Literal["vault"]
    alphabet: str
    length: int
    deterministic: bool
    created_at: int


POLICIES: Final = Table("policies", PolicyRecord, "policy")


class TokenizationService:
    """Keeps the tenant's policies and does what they say."""

    def __init__(self, vault: Vault, grants: Grants, audit: Audit, clock: Callable[[], float]) -> None:
        self._vault = vault
        self._grants = grants
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "policy.create": Operation(PolicyCreate, self.create_policy, effect=True),
            "policy.list": Operation(Page, self.list_policies, effect=False),
            "token.tokenize": Operation(Tokenize, self.answer_tokenize, effect=True),
            "token.detokenize": Operation(Detokenize, self.answer_detokenize, effect=False),
        }

    def create_policy(self, caller: Caller, request: PolicyCreate, tx: Tx) -> PolicyInfo:
        """Create a policy; it never changes, since tokens hang on it.

        Raises:
            ExistsError: The name is taken.
            ConfigurationError: The alphabet cannot be used, or there would be too few tokens.
        """
        resource = f"policy/{request.policy}"
        self._grants.require(tx, caller, "policy.manage", resource)
        shape = TokenShape(alphabet_of(request.alphabet), request.length)
        record = PolicyRecord(
            plan=request.plan,
            alphabet=shape.alphabet,
            length=shape.length,
            deterministic=request.deterministic,
            created_at=int(self._clock()),
        )
        row = tx.insert(POLICIES, caller.tenant, request.policy, record)
        self._audit.record(tx, caller, act="policy.create", resource=resource, detail={"plan": request.plan})
        return _info(row)

    def list_policies(self, caller: Caller, request: Page, tx: Tx) -> PolicyList:
        """List the policies."""
        self._grants.require(tx, caller, "policy.manage", "policy/*")
        rows = tx.scan(POLICIES, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="policy.list", resource="policy/*")
        return PolicyList(
            policies=[_info(row) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def answer_tokenize(self, caller: Caller, request: Tokenize, tx: Tx) -> Tokens:
        """Replace values by tokens (right `tokenize`)."""
        return Tokens(tokens=self.tokenize(tx, caller, request.policy, request.values))

    def answer_detokenize(self, caller: Caller, request: Detokenize, tx: Tx) -> Values:
        """Give the values behind tokens (right `detokenize`, which FaaS principals never have)."""
        values = self.detokenize(tx, caller, request.policy, request.tokens)
        errors = {str(i): OpenError.code for i, value in enumerate(values) if value is None}
        return Values(values=values, errors=errors)

    def tokenize(self, tx: Tx, caller: Caller, policy: str, values: Sequence[str]) -> list[str]:
        """Replace values by tokens, for a principal or a confidential function.

        Raises:
            DeniedError: No right `tokenize` on the policy.
            ConfigurationError: There is no such policy.
            LimitError: The policy has hardly any tokens left.
        """
        resource = f"policy/{policy}"
        self._grants.require(tx, caller, "tokenize", resource)
        tokens = self._vault.tokenize(tx, self._plan(tx, caller, policy), values)
        self._audit.record(
            tx, caller, act="token.tokenize", resource=resource, detail={"values": len(values)}
        )
        return tokens

    def detokenize(self, tx: Tx, caller: Caller, policy: str, tokens: Sequence[str]) -> list[str | None]:
        """Give the values behind tokens, None where there is none.

        Raises:
            DeniedError: No right `detokenize` on the policy, or a FaaS principal.
            ConfigurationError: There is no such policy.
        """
        resource = f"policy/{policy}"
        self._grants.require(tx, caller, "detokenize", resource)
        values = self._vault.detokenize(tx, self._plan(tx, caller, policy), tokens)
        self._audit.record(
            tx,
            caller,
            act="token.detokenize",
            resource=resource,
            detail={"tokens": len(tokens), "failed": values.count(None)},
        )
        return values

    def _plan(self, tx: Tx, caller: Caller, policy: str) -> VaultPlan:
        row = tx.get(POLICIES, caller.tenant, policy)
        if row is None:
            raise ConfigurationError("there is no such policy", hint="create it with policy.create")
        return VaultPlan(
            tenant=caller.tenant,
            policy=policy,
            shape=TokenShape(row.record.alphabet, row.record.length),
            deterministic=row.record.deterministic,
        )


def _info(row: Row[PolicyRecord]) -> PolicyInfo:
    return PolicyInfo(
        policy=row.id,
        plan=row.record.plan,
        alphabet=row.record.alphabet,
        length=row.record.length,
        deterministic=row.record.deterministic,
        created_at=row.record.created_at,
    )
