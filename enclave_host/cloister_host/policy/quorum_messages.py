"""What the operations on quorum rules and proposals take and give."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from cloister_host.operations import Request, Result

__all__ = [
    "ProposalInfo",
    "ProposalList",
    "ProposalName",
    "QuorumRules",
    "QuorumSet",
    "RuleInfo",
]

MAX_APPROVALS: Final = 16
DAY: Final = 24 * 3600

Act = Annotated[str, msgspec.Meta(pattern=r"^[a-z]+\.[a-z]+\Z", max_length=64)]
ProposalId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}-[0-9]{8}\Z", max_length=41)]


class QuorumSet(Request):
    """One rule.

    Attributes:
        approvals: How many others must approve the act; 0 frees it.
        lifetime_seconds: How long a proposal stands, 5 minutes to 30 days.
    """

    act: Act
    approvals: Annotated[int, msgspec.Meta(ge=0, le=MAX_APPROVALS)]
    lifetime_seconds: Annotated[int, msgspec.Meta(ge=300, le=30 * DAY)] = DAY


class ProposalName(Request):
    """Names a proposal."""

    proposal: ProposalId


class RuleInfo(Result):
    """One rule in force."""

    act: str
    approvals: int
    lifetime_seconds: int


class QuorumRules(Result):
    """Every rule in force; acts without one are free to whoever has the right."""

    rules: list[RuleInfo]


class ProposalInfo(Result):
    """One proposal.

    Attributes:
        principal: Who asked for the act, and alone can carry it out.
        digest: Hexadecimal SHA-256 of the exact operation and payload.
        detail: What the act is about.
        state: `waiting` for approvals, `approved` (to be carried out), `executed`, `rejected`, `expired`.
        missing: How many approvals it lacks.
        created_at: Epoch seconds.
        expires: Epoch seconds.
    """

    proposal: str
    principal: str
    act: str
    resource: str
    digest: str
    detail: dict[str, str | int]
    state: str
    approved_by: list[str]
    missing: int
    ended_by: str
    created_at: int
    expires: int


class ProposalList(Result):
    """One page of proposals; `next` continues it, and is empty at the end."""

    proposals: list[ProposalInfo]
    next: str
