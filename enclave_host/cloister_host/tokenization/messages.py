"""What the operations on policies and tokens take and give."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cloister_host.operations import Name, Request, Result
from cloister_host.tokenization.policies import Label, PolicyDocument

__all__ = [
    "MAX_BATCH",
    "Detokenize",
    "PolicyChecked",
    "PolicyCreate",
    "PolicyInfo",
    "PolicyList",
    "PolicyName",
    "Retokenize",
    "Revoke",
    "Revoked",
    "Tokenize",
    "Tokens",
    "Values",
]

MAX_BATCH = 10_000
MAX_CHARS = 4096  # of a value or a token

Value = Annotated[str, Meta(min_length=1, max_length=MAX_CHARS)]
Token = Annotated[str, Meta(max_length=MAX_CHARS)]
ValueColumn = Annotated[list[Value], Meta(min_length=1, max_length=MAX_BATCH)]
TokenColumn = Annotated[list[Token], Meta(min_length=1, max_length=MAX_BATCH)]
Tweaks = Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=MAX_BATCH)]
References = Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(max_length=MAX_BATCH)]
KeyVersion = Annotated[int, Meta(ge=1)]


class PolicyCreate(PolicyDocument, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy and its name; see `policies.PolicyDocument`."""

    policy: Name


class PolicyName(Request):
    """Names a policy."""

    policy: Name


class PolicyInfo(Result):
    """One policy, and the arithmetic that found it safe."""

    policy: str
    plan: str
    document: PolicyDocument
    domain: str
    arithmetic: str
    key_version: int
    created_at: int


class PolicyChecked(Result):
    """What a policy would do, and the number of values that can take the place of one another."""

    plan: str
    domain: str
    arithmetic: str


class PolicyList(Result):
    """One page of policies; `next` continues it, and is empty at the end."""

    policies: list[PolicyInfo]
    next: str


class Tokenize(Request):
    """Values to be replaced by tokens.

    Attributes:
        tweaks: One a value, where the policy wants them.
        references: One a value, given back as they are.
        partial: Whether values that do not fit are errors of their own, and not of the whole.
    """

    policy: Name
    values: ValueColumn
    tweaks: Tweaks | None = None
    references: References | None = None
    partial: bool = False

    def __repr__(self) -> str:
        return f"Tokenize(policy={self.policy!r}, {len(self.values)} values)"


class Tokens(Result):
    """One token a value, in their order; null where `errors` has a code by the value's index.

    Attributes:
        key_version: What `token.detokenize` needs after a rotation.
    """

    tokens: list[str | None]
    errors: dict[str, str]
    key_version: int
    references: list[str] | None = None

    def __repr__(self) -> str:
        return f"Tokens({len(self.tokens)} tokens)"


class Detokenize(Request):
    """Tokens whose values are wanted.

    Attributes:
        key_version: The one that made them; the current one if it is not given.
        purpose: What for; it is recorded.
    """

    policy: Name
    tokens: TokenColumn
    tweaks: Tweaks | None = None
    references: References | None = None
    key_version: KeyVersion | None = None
    purpose: Label | None = None

    def __repr__(self) -> str:
        return f"Detokenize(policy={self.policy!r}, {len(self.tokens)} tokens)"


class Values(Result):
    """One value a token, as far as the caller may see it; null where `errors` has a code by index.

    Attributes:
        show: `plain`, `masked` or `redacted`.
    """

    values: list[str | None]
    errors: dict[str, str]
    show: str
    references: list[str] | None = None

    def __repr__(self) -> str:
        return f"Values({len(self.values)} values)"


class Retokenize(Request):
    """Tokens to be moved to the current key version, or to the policy `to`."""

    policy: Name
    tokens: TokenColumn
    to: Name | None = None
    tweaks: Tweaks | None = None
    references: References | None = None
    key_version: KeyVersion | None = None

    def __repr__(self) -> str:
        return f"Retokenize(policy={self.policy!r}, {len(self.tokens)} tokens)"


class Revoke(Request):
    """Vault tokens that must stand for nothing any more."""

    policy: Name
    tokens: TokenColumn


class Revoked(Result):
    """How many of them stood for something."""

    revoked: int
