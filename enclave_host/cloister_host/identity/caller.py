"""Whoever a service method acts for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

__all__ = ["OPERATOR", "SYSTEM_TENANT", "Caller", "Kind", "Subject"]

Kind = Literal["person", "service", "faas"]
Subject = Literal["person", "service", "faas", "function"]

SYSTEM_TENANT: Final = "system"
OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated principal, or a confidential function that runs for one.

    Attributes:
        tenant: Whose data and keys are in reach; there is no other.
        principal: Its name, or `function:<digest>`.
        kind: A person, a service, a FaaS function (which must never see plaintext), or a
            confidential function.
        correlation_id: Ties the audit entries and logs of one request together.
        on_behalf_of: The principal that invoked a confidential function.
        purpose: What the caller says it does this for; recorded, and asked for by conditions of grants.
        groups: The groups it belongs to; None if that has to be looked up.
        claims: What the issuer of its credential says of it, for conditions of grants.
    """

    tenant: str
    principal: str
    kind: Subject
    correlation_id: str
    on_behalf_of: str = ""
    purpose: str = ""
    groups: tuple[str, ...] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def as_function(self, digest: str) -> Caller:
        """The confidential function with this digest, invoked by this caller."""
        return replace(
            self,
            principal=f"function:{digest}",
            kind="function",
            on_behalf_of=self.principal,
            groups=(),
            claims={},
        )
