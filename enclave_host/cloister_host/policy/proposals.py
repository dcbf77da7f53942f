"""Proposals: exact acts that wait for approval, each in a protected row.

A proposal's id is a keyed hash of the exact act (who, what, on which resource, with which payload) and
a generation. So the same request finds its proposal again without naming it, a request that differs in
one bit finds none, and whoever reads the database cannot tell what was asked for.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from cloister_host.identity.caller import Caller
from cloister_host.store import Row, Table, Tx
from cloister_host.store.canonical import canonical

__all__ = ["CLOCK_SKEW_SECONDS", "PROPOSALS", "Proposal", "is_open", "proposal_key", "proposals_of"]

CLOCK_SKEW_SECONDS: Final = 60
_KEY_CHARACTERS: Final = 32


class Proposal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `proposals` row.

    Attributes:
        principal: Who asked, and alone can carry it out.
        digest: Hexadecimal SHA-256 of the exact operation and payload.
        detail: What the act is about, for the approvers; names and digests only.
        approved_by: Distinct principals, in the order of their approvals.
        ended_by: Who rejected or withdrew it.
        created_at: Epoch seconds.
        expires: Epoch seconds; from then on neither approved nor carried out.
    """

    principal: str
    act: str
    resource: str
    digest: str
    detail: dict[str, str | int]
    state: Literal["open", "executed", "rejected"]
    approved_by: tuple[str, ...] = ()
    ended_by: str = ""
    created_at: int
    expires: int


PROPOSALS: Final = Table("proposals", Proposal, "proposal")


def proposal_key(tx: Tx, caller: Caller, act: str, resource: str, digest: bytes) -> str:
    """The part of a proposal's id that stands for the exact act; a generation follows it."""
    key = tx.derived_key(caller.tenant, "proposal")
    exact = canonical((caller.principal, act, resource, digest.hex()))
    return hmac.digest(key.reveal(), exact, "sha256").hex()[:_KEY_CHARACTERS] + "-"


def proposals_of(tx: Tx, tenant: str, prefix: str = "", after: str = "") -> Iterator[Row[Proposal]]:
    """Every proposal whose id begins so, in the order of the ids."""
    while rows := tx.scan(PROPOSALS, tenant, prefix=prefix, after=after):
        yield from rows
        after = rows[-1].id


def is_open(proposal: Proposal, now: float) -> bool:
    """Whether it can still be approved and carried out.

    One that seems to come from the future is not: then the clock was set back, and nobody knows how
    old the proposal is.
    """
    return proposal.state == "open" and proposal.created_at - CLOCK_SKEW_SECONDS <= now < proposal.expires
