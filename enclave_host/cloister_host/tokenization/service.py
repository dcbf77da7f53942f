"""Tokens through the API, and for confidential functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from cloister.errors import ConfigurationError, LimitError
from cloister.mask import View
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.keyring import KeyRing
from cloister_host.operations import Operation
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Tx
from cloister_host.tokenization.budgets import Budgets
from cloister_host.tokenization.messages import (
    Detokenize,
    Retokenize,
    Revoke,
    Revoked,
    Tokenize,
    Tokens,
    Values,
)
from cloister_host.tokenization.plans import UNOPENED, Column, Ff1Plan, HashPlan, RedactPlan, VaultPlan
from cloister_host.tokenization.registry import Policies, Policy
from cloister_host.tokenization.vault import Vault

__all__ = ["TokenizationService"]


class TokenizationService:
    """Keeps the tenant's policies and does what they say."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        vault: Vault,
        grants: Grants,
        quorum: Quorum,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._vault = vault
        self._policies = Policies(ring=ring, grants=grants, quorum=quorum, audit=audit, clock=clock)
        self._quorum = quorum
        self._budgets = Budgets(clock)
        self._grants = grants
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            **self._policies.operations(),
            "token.tokenize": Operation(Tokenize, self.answer_tokenize, effect=True, receipt="result"),
            "token.detokenize": Operation(Detokenize, self.answer_detokenize, effect=False, receipt="result"),
            "token.retokenize": Operation(Retokenize, self.answer_retokenize, effect=True, receipt="result"),
            "token.revoke": Operation(Revoke, self.answer_revoke, effect=True, receipt="result"),
        }

    # --- through the API ----------------------------------------------------------------------------

    def answer_tokenize(self, caller: Caller, request: Tokenize, tx: Tx) -> Tokens:
        """Replace values by tokens (right `tokenize`).

        Raises:
            ConfigurationError: A value does not fit the policy, and the request is not `partial`.
        """
        policy = self._permitted(tx, caller, "tokenize", request.policy)
        _check_lengths(request.values, request.tweaks, request.references)
        column = self._tokenize(tx, policy, request.values, _tweaks(request.tweaks, policy))
        if column.errors and not request.partial:
            _refuse_items(column)
        self._record(tx, caller, "token.tokenize", policy, column)
        return _tokens(policy, column, request.references)

    def answer_detokenize(self, caller: Caller, request: Detokenize, tx: Tx) -> Values:
        """Give what the caller may see of the values behind tokens.

        The right `detokenize`, which FaaS principals never have, shows what the policy's views say;
        the right `detokenize-masked` never shows a plain value.

        A confidential function shows nobody what it detokenizes; it needs no quorum for each call.

        Raises:
            LimitError: The caller's budget is used up.
            QuorumNeededError: Others have to approve that these tokens are shown.
        """
        policy, view = self._view(tx, caller, request.policy)
        _check_lengths(request.tokens, request.tweaks, request.references)
        tweaks = _tweaks(request.tweaks, policy)
        stated = request.purpose or caller.purpose or None
        self._check_purpose(tx, caller, policy, stated)
        if caller.kind != "function":
            self._quorum.require(
                tx,
                caller,
                "token.detokenize",
                policy.resource,
                request_digest("token.detokenize", request),
                detail={"tokens": len(request.tokens), "show": view.show},
            )
        self._spend(tx, caller, policy, len(request.tokens))
        column = self._undo(tx, policy, request.tokens, tweaks, request.key_version)
        purpose = {"purpose": stated} if stated else {}
        self._record(tx, caller, "token.detokenize", policy, column, show=view.show, **purpose)
        return Values(
            values=[None if value is None else view.apply(value) for value in column.values],
            errors=_errors(column),
            show=view.show,
            references=request.references,
        )

    def answer_retokenize(self, caller: Caller, request: Retokenize, tx: Tx) -> Tokens:
        """Move tokens to the current key version, or to another policy, without showing a value.

        Needs the right `retokenize` on the policy of the tokens, and `tokenize` on the one they go to.
        """
        source = self._permitted(tx, caller, "retokenize", request.policy)
        target = self._permitted(tx, caller, "tokenize", request.to or request.policy)
        _check_lengths(request.tokens, request.tweaks, request.references)
        old_tweaks, new_tweaks = _tweaks(request.tweaks, source), _tweaks(request.tweaks, target)
        column = self._undo(tx, source, request.tokens, old_tweaks, request.key_version, rescue=True)
        if isinstance(target.compiled.plan, RedactPlan):
            # What it leaves of a value is for its own readers, not for those of the policy that they leave.
            raise ConfigurationError(
                "a mask is no token: it would show part of the values", hint="use masked detokenization"
            )
        found = [place for place, value in enumerate(column.values) if value is not None]
        values = [column.values[place] or "" for place in found]
        moved = self._tokenize(tx, target, values, new_tweaks and [new_tweaks[place] for place in found])
        out = Column([None] * len(request.tokens), dict(column.errors))
        for place, token in zip(found, moved.values, strict=True):
            out.values[place] = token
        # Why a value does not fit the other policy would tell about the value: one error for all.
        out.errors.update({found[place]: UNOPENED for place in moved.errors})
        self._record(tx, caller, "token.retokenize", source, out, to=target.name)
        return _tokens(target, out, request.references)

    def answer_revoke(self, caller: Caller, request: Revoke, tx: Tx) -> Revoked:
        """Make vault tokens worthless, and destroy what is behind them (right `policy.manage`).

        Raises:
            QuorumNeededError: Others have to approve that exactly these are revoked.
        """
        policy = self._permitted(tx, caller, "policy.manage", request.policy)
        if not isinstance(policy.compiled.plan, VaultPlan):
            raise ConfigurationError("only vault tokens can be revoked", hint="others hang on no stored row")
        self._quorum.require(
            tx,
            caller,
            "token.revoke",
            policy.resource,
            request_digest("token.revoke", request),
            detail={"tokens": len(request.tokens)},
        )
        revoked = self._vault.revoke(tx, policy, request.tokens)
        self._audit.record(
            tx, caller, act="token.revoke", resource=policy.resource, detail={"tokens": revoked}
        )
        return Revoked(revoked=revoked)

    # --- for confidential functions -----------------------------------------------------------------

    def tokenize(self, tx: Tx, caller: Caller, policy: str, values: Sequence[str]) -> list[str]:
        """Replace values by tokens, for a principal or a confidential function.

        Raises:
            DeniedError: No right `tokenize` on the policy.
            ConfigurationError: There is no such policy, or a value does not fit it.
            LimitError: The policy has hardly any tokens left.
        """
        found = self._permitted(tx, caller, "tokenize", policy)
        column = self._tokenize(tx, found, values, _tweaks(None, found))
        if column.errors:
            _refuse_items(column)
        self._record(tx, caller, "token.tokenize", found, column)
        return [token for token in column.values if token is not None]

    def detokenize(self, tx: Tx, caller: Caller, policy: str, tokens: Sequence[str]) -> list[str | None]:
        """Give what the caller may see of the values behind tokens, None where there is none.

        Raises:
            DeniedError: No right `detokenize` on the policy, or the policy shows the caller nothing.
            ConfigurationError: There is no such policy.
            LimitError: The caller's budget is used up.
        """
        request = Detokenize(policy=policy, tokens=list(tokens))
        return self.answer_detokenize(caller, request, tx).values

    # ------------------------------------------------------------------------------------------------

    def _permitted(self, tx: Tx, caller: Caller, action: str, policy: str) -> Policy:
        self._grants.require(tx, caller, action, f"policy/{policy}")
        return self._policies.find(tx, caller, policy)

    def _view(self, tx: Tx, caller: Caller, name: str) -> tuple[Policy, View]:
        resource = f"policy/{name}"
        plain = self._grants.holds(tx, caller, "detokenize", resource)
        if not plain:
            action = "detokenize-masked"
            if not self._grants.holds(tx, caller, action, resource):
                self._grants.deny(tx, caller, "detokenize", resource)
        policy = self._policies.find(tx, caller, name)
        views = policy.compiled.views
        view = views.plain_allowed(caller) if plain else views.masked_only(caller)
        if view.show == "denied":
            self._grants.deny(tx, caller, "detokenize", resource)
        return policy, view

    def _check_purpose(self, tx: Tx, caller: Caller, policy: Policy, purpose: str | None) -> None:
        allowed = policy.compiled.document.purposes
        if allowed and purpose not in allowed:
            self._audit.refuse(tx, caller, act="token.detokenize", resource=policy.resource)
            raise ConfigurationError("this policy needs a purpose", hint=f"one of {', '.join(allowed)}")

    def _tokenize(
        self, tx: Tx, policy: Policy, values: Sequence[str], tweaks: Sequence[str] | None
    ) -> Column:
        match policy.compiled.plan:
            case Ff1Plan() as plan:
                return plan.tokenize(values, policy.protecting(tx).octets, tweaks)
            case HashPlan() as plan:
                return plan.tokenize(values, policy.protecting(tx).octets)
            case RedactPlan() as plan:
                return plan.tokenize(values)
            case VaultPlan() as plan:
                column = Column([None] * len(values))
                column.errors = {
                    place: fault for place, value in enumerate(values) if (fault := plan.fault(value))
                }
                good = [place for place in range(len(values)) if place not in column.errors]
                tokens = self._vault.tokenize(tx, policy, [values[place] for place in good])
                for place, token in zip(good, tokens, strict=True):
                    column.values[place] = token
                return column

    def _spend(self, tx: Tx, caller: Caller, policy: Policy, count: int) -> None:
        try:
            self._budgets.spend(tx, caller, policy.name, policy.compiled.limits, count)
        except LimitError:
            detail: dict[str, str | int] = {"values": count, "reason": "budget"}
            self._audit.refuse(tx, caller, act="token.detokenize", resource=policy.resource, detail=detail)
            raise

    def _undo(
        self,
        tx: Tx,
        policy: Policy,
        tokens: Sequence[str],
        tweaks: Sequence[str] | None,
        key_version: int | None,
        *,
        rescue: bool = False,
    ) -> Column:
        match policy.compiled.plan:
            case Ff1Plan() as plan:
                key = policy.processing(tx, key_version, rescue=rescue)
                return plan.detokenize(tokens, key.octets, tweaks)
            case VaultPlan():
                values = self._vault.detokenize(tx, policy, tokens, rescue=rescue)
                missing = {place: UNOPENED for place, value in enumerate(values) if value is None}
                return Column(values, missing)
            case HashPlan() | RedactPlan():
                raise ConfigurationError(f"nothing comes back from plan {policy.compiled.plan.kind}")

    def _record(
        self, tx: Tx, caller: Caller, act: str, policy: Policy, column: Column, **detail: str
    ) -> None:
        counts = {"values": len(column.values), "failed": len(column.errors)}
        self._audit.record(tx, caller, act=act, resource=policy.resource, detail={**counts, **detail})


def _check_lengths(
    items: Sequence[str], tweaks: Sequence[str] | None, references: Sequence[str] | None
) -> None:
    for column in (tweaks, references):
        if column is not None and len(column) != len(items):
            raise ConfigurationError("tweaks and references are as many as the items they belong to")


def _tweaks(tweaks: Sequence[str] | None, policy: Policy) -> Sequence[str] | None:
    """The tweaks, if the policy takes any."""
    if policy.compiled.document.tweak != "caller":
        return None
    if tweaks is None:
        raise ConfigurationError("this policy needs a tweak with every item", hint="send tweaks")
    return tweaks


def _refuse_items(column: Column) -> NoReturn:
    place, code = min(column.errors.items())
    raise ConfigurationError(
        f"{len(column.errors)} of {len(column.values)} values do not fit the policy, first {place} ({code})",
        hint="nothing was tokenized; send partial to have the others",
    )


def _errors(column: Column) -> dict[str, str]:
    return {str(place): code for place, code in sorted(column.errors.items())}


def _tokens(policy: Policy, column: Column, references: list[str] | None) -> Tokens:
    return Tokens(
        tokens=column.values,
        errors=_errors(column),
        key_version=policy.key_version,
        references=references,
    )
