"""What the operations on policies and tokens take and give."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cloister_host.operations import Name, Request, Result

__all__ = [
    "MAX_BATCH",
    "Detokenize",
    "PolicyCreate",
    "PolicyInfo",
    "PolicyList",
    "Tokenize",
    "Tokens",
    "Values",
]

MAX_BATCH = 10_000
MAX_VALUE_CHARS = 4096
MAX_TOKEN_CHARS = 64

Value = Annotated[str, Meta(min_length=1, max_length=MAX_VALUE_CHARS)]
Token = Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)]


class PolicyCreate(Request):
    """A policy of the plan `vault`: random tokens, values encrypted at rest.

    Attributes:
        alphabet: `digits`, `lowercase`, `uppercase`, `letters`, `alphanumeric` or `hex`; or the
            characters themselves.
        length: Characters of a token.
        deterministic: Whether a value keeps one token. Then equal values show as equal tokens.
    """

    policy: Name
    plan: Literal["vault"]
    alphabet: Annotated[str, Meta(min_length=2, max_length=256)]
    length: Annotated[int, Meta(ge=1, le=MAX_TOKEN_CHARS)]
    deterministic: bool = False


class PolicyInfo(Result):
    """One policy."""

    policy: str
    plan: str
    alphabet: str
    length: int
    deterministic: bool
    created_at: int


class PolicyList(Result):
    """One page of policies; `next` continues it, and is empty at the end."""

    policies: list[PolicyInfo]
    next: str


class Tokenize(Request):
    """Values to be replaced by tokens."""

    policy: Name
    values: Annotated[list[Value], Meta(min_length=1, max_length=MAX_BATCH)]

    def __repr__(self) -> str:
        return f"Tokenize(policy={self.policy!r}, {len(self.values)} values)"


class Tokens(Result):
    """One token a value, in their order."""

    tokens: list[str]


class Detokenize(Request):
    """Tokens whose values are wanted."""

    policy: Name
    tokens: Annotated[list[Token], Meta(min_length=1, max_length=MAX_BATCH)]


class Values(Result):
    """One value a token, null where there is none; `errors` has the code by the token's index."""

    values: list[str | None]
    errors: dict[str, str]

    def __repr__(self) -> str:
        return f"Values({len(self.values)} values)"
