"""n of m approvals for the acts a tenant names; a service calls `Quorum.require` before its effect.

Whoever asks gets a proposal that binds to the exact act. Once enough others have approved it, the very
same request is carried out, once. The rules themselves, and everything that makes somebody an approver
or lets somebody act as one, are under the strictest rule of the tenant as soon as it has any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from cloister.errors import LimitError, QuorumNeededError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.policy.acts import ACTS, QUORUM_CHANGE, implied
from cloister_host.policy.approvers import Approvers
from cloister_host.policy.proposals import PROPOSALS, Proposal, is_open, proposal_key, proposals_of
from cloister_host.store import Row, Table, Tx
from cloister_host.store.canonical import canonical

__all__ = ["QUORUM", "Quorum", "Rule", "Rules", "request_digest"]

MAX_OPEN_PROPOSALS: Final = 200
KEPT_SECONDS: Final = 30 * 24 * 3600


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many must approve an act, and for how long a proposal stands."""

    approvals: int
    lifetime_seconds: int


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a tenant's one `quorum` row: its rules by act."""

    rules: dict[str, Rule]

    def for_act(self, act: str) -> Rule | None:
        """The rule that holds for an act: the strictest of its own and those of acts it implies."""
        names = self.rules.keys() if act == QUORUM_CHANGE else set(implied(act)) & self.rules.keys()
        found = [self.rules[name] for name in sorted(names)]
        return max(found, key=lambda rule: rule.approvals, default=None)


QUORUM: Final = Table("quorum", Rules, "quorum")
RULES_ID: Final = "rules"
_NONE: Final = Rules(rules={})


def request_digest(op: str, request: msgspec.Struct) -> bytes:
    """SHA-256 of an exact operation and its payload, defaults filled in."""
    return hashlib.sha256(canonical((op, request))).digest()


class Quorum:
    """Lets an act go on, or makes it wait for approvals.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, approvers: Approvers, audit: Audit, clock: Callable[[], float]) -> None:
        self._approvers = approvers
        self._audit = audit
        self._clock = clock

    def rules(self, tx: Tx, tenant: str) -> Rules:
        """The rules of a tenant."""
        row = tx.get(QUORUM, tenant, RULES_ID)
        return row.record if row else _NONE

    def require(
        self,
        tx: Tx,
        caller: Caller,
        act: str,
        resource: str,
        digest: bytes,
        *,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """Go on, and use the approvals up, or refuse and propose the act.

        Call it in the transaction of the effect, after the caller's right was checked: the approvals are
        spent exactly if the effect happens.

        Args:
            tx: The transaction of the effect.
            caller: Who asks.
            act: One of `ACTS`.
            resource: What it is done to, as in the grant that allows it.
            digest: `request_digest` of the exact request.
            detail: What the approvers should see of it; names and digests only.

        Raises:
            QuorumNeededError: It has not been approved by enough others. It names the proposal.
            LimitError: The caller has too many open proposals.
        """
        row = self._approved(tx, caller, act, resource, digest, detail)
        if row is not None:
            tx.put(PROPOSALS, caller.tenant, row.id, replace(row.record, state="executed"))
            self._audit.record(
                tx,
                caller,
                act="proposal.execute",
                resource=resource,
                detail={"act": act, "proposal": row.id, "approvals": len(row.record.approved_by)},
            )

    def check(
        self,
        tx: Tx,
        caller: Caller,
        act: str,
        resource: str,
        digest: bytes,
        *,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """As `require`, but spend nothing: for an early answer, before work that `require` comes after."""
        self._approved(tx, caller, act, resource, digest, detail)

    def require_for_credential(
        self,
        tx: Tx,
        caller: Caller,
        principal: str,
        resource: str,
        digest: bytes,
        *,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """`require` for an act after which somebody else can act as `principal`.

        Arguments and errors as in `require`.
        """
        act = "policy.change"
        if self._approvers.is_one(tx, caller.tenant, principal):
            act = QUORUM_CHANGE
        elif self._approvers.sees_values(tx, caller.tenant, principal):
            act = "grant.detokenize"
        self.require(tx, caller, act, resource, digest, detail={"principal": principal, **(detail or {})})

    def missing(self, tx: Tx, tenant: str, proposal: Proposal) -> int:
        """How many approvals a proposal still lacks; those who may approve no longer do not count."""
        rule = self.rules(tx, tenant).for_act(proposal.act)
        if rule is None:
            return 0
        valid = [
            name
            for name in dict.fromkeys(proposal.approved_by)
            if name != proposal.principal and self._approvers.may(tx, tenant, name, proposal.act)
        ]
        return max(0, rule.approvals - len(valid))

    # ------------------------------------------------------------------------------------------------

    def _approved(  # noqa: PLR0917 (as `require`)
        self,
        tx: Tx,
        caller: Caller,
        act: str,
        resource: str,
        digest: bytes,
        detail: Mapping[str, str | int] | None,
    ) -> Row[Proposal] | None:
        """The proposal that lets the act go on, or None if no rule stands in its way."""
        assert act in ACTS, "an act of the program is missing from the table"
        rule = self.rules(tx, caller.tenant).for_act(act)
        if rule is None:
            return None
        key = proposal_key(tx, caller, act, resource, digest)
        last = _last(tx, caller.tenant, key)
        if last is not None and is_open(last.record, self._clock()):
            missing = self.missing(tx, caller.tenant, last.record)
            if missing == 0:
                return last
            raise self._waiting(tx, caller, last.id, last.record, missing)
        now = int(self._clock())
        proposal = Proposal(
            principal=caller.principal,
            act=act,
            resource=resource,
            digest=digest.hex(),
            detail=dict(detail or {}),
            state="open",
            created_at=now,
            expires=now + rule.lifetime_seconds,
        )
        generation = 1 + (int(last.id.removeprefix(key)) if last else 0)
        proposal_id = f"{key}{generation:08d}"
        self._propose(tx, caller, proposal_id, proposal)
        raise self._waiting(tx, caller, proposal_id, proposal, rule.approvals)

    def _propose(self, tx: Tx, caller: Caller, proposal_id: str, proposal: Proposal) -> None:
        now = self._clock()
        known = list(proposals_of(tx, caller.tenant))
        mine = [row for row in known if row.record.principal == caller.principal and is_open(row.record, now)]
        if len(mine) >= MAX_OPEN_PROPOSALS:
            raise LimitError(
                "there are too many open proposals of this principal",
                hint="withdraw some: `cloister proposal reject ID`",
            )
        old = [row.id for row in known if row.record.expires + KEPT_SECONDS < now]

        def write(tx: Tx) -> None:
            # Somebody may have asked the same at the same time: one proposal serves both.
            if tx.get(PROPOSALS, caller.tenant, proposal_id) is None:
                tx.insert(PROPOSALS, caller.tenant, proposal_id, proposal)
                detail = {"act": proposal.act, "proposal": proposal_id}
                self._audit.record(
                    tx, caller, act="proposal.create", resource=proposal.resource, detail=detail
                )
            for gone in old:
                tx.delete(PROPOSALS, caller.tenant, gone)

        # The error that says so undoes the transaction; the proposal has to outlive it.
        tx.on_rollback(write)
        write(tx)

    def _waiting(
        self, tx: Tx, caller: Caller, proposal_id: str, proposal: Proposal, missing: int
    ) -> QuorumNeededError:
        self._audit.refuse(
            tx,
            caller,
            act=proposal.act,
            resource=proposal.resource,
            detail={"proposal": proposal_id, "missing": missing},
        )
        return QuorumNeededError(
            f"{proposal.act} on this resource needs {missing} more approval{'s' if missing > 1 else ''}",
            proposal_id=proposal_id,
            hint=f"have others run `cloister proposal approve {proposal_id}`, then send the same again",
            correlation_id=caller.correlation_id,
        )


def _last(tx: Tx, tenant: str, key: str) -> Row[Proposal] | None:
    """The latest generation of an exact act."""
    last = None
    for last in proposals_of(tx, tenant, prefix=key):  # noqa: B007 (only the last one is wanted)
        pass
    return last
