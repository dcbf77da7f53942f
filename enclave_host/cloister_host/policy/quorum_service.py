"""Quorum rules set and shown; proposals listed, approved and rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cloister.errors import ConfigurationError, DeniedError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page, Request
from cloister_host.policy.acts import ACTS, QUORUM_CHANGE, check_act
from cloister_host.policy.approvers import Approvers
from cloister_host.policy.grants import Grants
from cloister_host.policy.proposals import PROPOSALS, Proposal, is_open
from cloister_host.policy.quorum import QUORUM, RULES_ID, Quorum, Rule, Rules, request_digest
from cloister_host.policy.quorum_messages import (
    ProposalInfo,
    ProposalList,
    ProposalName,
    QuorumRules,
    QuorumSet,
    RuleInfo,
)
from cloister_host.store import Row, Tx

__all__ = ["QuorumService"]


class QuorumService:
    """The rules and the proposals of the caller's tenant."""

    def __init__(
        self,
        *,
        quorum: Quorum,
        approvers: Approvers,
        grants: Grants,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._quorum = quorum
        self._approvers = approvers
        self._grants = grants
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "quorum.set": Operation(QuorumSet, self.set, effect=True),
            "quorum.show": Operation(Request, self.show, effect=False),
            "proposal.list": Operation(Page, self.list, effect=False),
            "proposal.show": Operation(ProposalName, self.show_proposal, effect=False),
            "proposal.approve": Operation(ProposalName, self.approve, effect=True),
            "proposal.reject": Operation(ProposalName, self.reject, effect=True),
        }

    def set(self, caller: Caller, request: QuorumSet, tx: Tx) -> QuorumRules:
        """Put an act under quorum, change how many must approve it, or (with 0) free it.

        Once the tenant has a rule, this needs the approvals of its strictest one.

        Raises:
            ConfigurationError: There is no such act, or too few others could ever approve it.
            QuorumNeededError: Others have to approve this change.
        """
        resource = f"act/{request.act}"
        self._grants.require(tx, caller, "quorum.manage", resource)
        check_act(request.act)
        rules = dict(self._quorum.rules(tx, caller.tenant).rules)
        if request.approvals:
            for act in (request.act, QUORUM_CHANGE):
                self._check_reachable(tx, caller, act, request.approvals)
            rules[request.act] = Rule(approvals=request.approvals, lifetime_seconds=request.lifetime_seconds)
        else:
            rules.pop(request.act, None)
        detail: dict[str, str | int] = {
            "act": request.act,
            "approvals": request.approvals,
            "lifetime_seconds": request.lifetime_seconds,
        }
        self._quorum.require(
            tx, caller, QUORUM_CHANGE, resource, request_digest("quorum.set", request), detail=detail
        )
        tx.put(QUORUM, caller.tenant, RULES_ID, Rules(rules=rules))
        self._audit.record(tx, caller, act="quorum.set", resource=resource, detail=detail)
        return _rules(Rules(rules=rules))

    def show(self, caller: Caller, _request: Request, tx: Tx) -> QuorumRules:
        """The rules in force, for those who manage them or approve under any of them."""
        if not any(self._may_approve(tx, caller, act) for act in ACTS):
            self._grants.require(tx, caller, "quorum.manage", "act/*")
        self._audit.record(tx, caller, act="quorum.show", resource="act/*")
        return _rules(self._quorum.rules(tx, caller.tenant))

    def list(self, caller: Caller, request: Page, tx: Tx) -> ProposalList:
        """List proposals: the caller's own, and those it may approve or manages."""
        rows = tx.scan(PROPOSALS, caller.tenant, after=request.after, limit=request.limit)
        sees = {act for act in ACTS if self._sees(tx, caller, act)}
        self._audit.record(tx, caller, act="proposal.list", resource="act/*")
        return ProposalList(
            proposals=[
                self._info(tx, row)
                for row in rows
                if row.record.principal == caller.principal or row.record.act in sees
            ],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def show_proposal(self, caller: Caller, request: ProposalName, tx: Tx) -> ProposalInfo:
        """Show one proposal.

        Raises:
            DeniedError: There is none that the caller may see.
        """
        row = self._visible(tx, caller, request.proposal, "proposal.show")
        self._record(tx, caller, "proposal.show", row)
        return self._info(tx, row)

    def approve(self, caller: Caller, request: ProposalName, tx: Tx) -> ProposalInfo:
        """Approve exactly what is proposed; approving again changes nothing.

        Raises:
            DeniedError: There is none that the caller may see, it lacks the right `approve` on the act, or
                it is the one who asked.
            ConfigurationError: It was carried out, rejected, or has expired.
        """
        row = self._visible(tx, caller, request.proposal, "proposal.approve")
        self._grants.require(tx, caller, "approve", f"act/{row.record.act}")
        if row.record.principal == caller.principal:
            self._audit.refuse(tx, caller, act="proposal.approve", resource=f"act/{row.record.act}")
            raise DeniedError(
                "nobody approves what they have asked for themselves",
                hint="ask another approver",
                correlation_id=caller.correlation_id,
            )
        self._check_open(row.record)
        if caller.principal not in row.record.approved_by:
            approved = (*row.record.approved_by, caller.principal)
            row = tx.put(PROPOSALS, caller.tenant, row.id, replace(row.record, approved_by=approved))
        self._record(tx, caller, "proposal.approve", row)
        return self._info(tx, row)

    def reject(self, caller: Caller, request: ProposalName, tx: Tx) -> ProposalInfo:
        """End a proposal: an approver rejects it, or the one who asked withdraws it.

        Raises:
            DeniedError: There is none that the caller may see, or it is neither.
            ConfigurationError: It was carried out, rejected, or has expired.
        """
        row = self._visible(tx, caller, request.proposal, "proposal.reject")
        if row.record.principal != caller.principal:
            self._grants.require(tx, caller, "approve", f"act/{row.record.act}")
        self._check_open(row.record)
        ended = replace(row.record, state="rejected", ended_by=caller.principal)
        row = tx.put(PROPOSALS, caller.tenant, row.id, ended)
        self._record(tx, caller, "proposal.reject", row)
        return self._info(tx, row)

    # ------------------------------------------------------------------------------------------------

    def _may_approve(self, tx: Tx, caller: Caller, act: str) -> bool:
        return self._grants.holds(tx, caller, "approve", f"act/{act}")

    def _sees(self, tx: Tx, caller: Caller, act: str) -> bool:
        return self._may_approve(tx, caller, act) or self._grants.holds(
            tx, caller, "quorum.manage", f"act/{act}"
        )

    def _visible(self, tx: Tx, caller: Caller, proposal_id: str, act: str) -> Row[Proposal]:
        """The proposal, if the caller may know of it; what is not there looks like what is not theirs."""
        row = tx.get(PROPOSALS, caller.tenant, proposal_id)
        if row is not None and (
            row.record.principal == caller.principal or self._sees(tx, caller, row.record.act)
        ):
            return row
        self._audit.refuse(tx, caller, act=act, resource="act/*")
        raise DeniedError(
            "there is no such proposal for this principal",
            hint="see `cloister proposal list`",
            correlation_id=caller.correlation_id,
        )

    def _check_open(self, proposal: Proposal) -> None:
        if not is_open(proposal, self._clock()):
            how = "has expired" if proposal.state == "open" else f"was {proposal.state}"
            raise ConfigurationError(f"this proposal {how}", hint="the act has to be asked for anew")

    def _check_reachable(self, tx: Tx, caller: Caller, act: str, approvals: int) -> None:
        others = sum(1 for name in self._approvers.of(tx, caller.tenant, act) if name != caller.principal)
        if others < approvals:
            raise ConfigurationError(
                f"only {others} others may approve {act}, and {approvals} would have to",
                hint=f"first grant the right: cloister grant add NAME approve act/{act}",
            )

    def _info(self, tx: Tx, row: Row[Proposal]) -> ProposalInfo:
        proposal, now = row.record, self._clock()
        waits = is_open(proposal, now)
        missing = self._quorum.missing(tx, row.tenant, proposal) if waits else 0
        state = proposal.state
        if state == "open":
            state = "expired" if not waits else "waiting" if missing else "approved"  # type: ignore[assignment]
        return ProposalInfo(
            proposal=row.id,
            principal=proposal.principal,
            act=proposal.act,
            resource=proposal.resource,
            digest=proposal.digest,
            detail=proposal.detail,
            state=state,
            approved_by=list(proposal.approved_by),
            missing=missing,
            ended_by=proposal.ended_by,
            created_at=proposal.created_at,
            expires=proposal.expires,
        )

    def _record(self, tx: Tx, caller: Caller, act: str, row: Row[Proposal]) -> None:
        self._audit.record(
            tx,
            caller,
            act=act,
            resource=row.record.resource,
            detail={"act": row.record.act, "proposal": row.id, "by": row.record.principal},
        )


def _rules(rules: Rules) -> QuorumRules:
    return QuorumRules(
        rules=[
            RuleInfo(act=act, approvals=rule.approvals, lifetime_seconds=rule.lifetime_seconds)
            for act, rule in sorted(rules.rules.items())
        ]
    )
