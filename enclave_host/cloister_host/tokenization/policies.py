"""What a tokenization policy says. `compiler` decides whether it is safe and what it means."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

__all__ = [
    "Limits",
    "PolicyDocument",
    "PreserveRule",
    "TokenForm",
    "ViewRule",
]

MAX_SYMBOLS: Final = 1024  # in one value

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SYMBOLS)]
Length = Annotated[int, msgspec.Meta(ge=1, le=MAX_SYMBOLS)]
Symbols = Annotated[str, msgspec.Meta(min_length=1, max_length=1 << 16)]
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}\Z", max_length=63)]
Audience = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(\*|kind:(person|service|faas|function)|[a-z][a-z0-9-]{0,62}|function:[A-Za-z0-9_-]{1,128})\Z",
        max_length=160,
    ),
]
Rate = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Year = Annotated[int, msgspec.Meta(ge=1800, le=2199)]

PlanName = Literal["ff1", "vault", "hash", "redact"]
TypeName = Literal["text", "template", "ssn", "pan", "pin", "phone", "email", "iban", "uuid", "date"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Part of a policy: unknown members are refused."""


class PreserveRule(_Part, frozen=True, kw_only=True):
    """Symbols that stay readable; separators do not count."""

    prefix: Count = 0
    suffix: Count = 0
    positions: Annotated[tuple[Count, ...], msgspec.Meta(max_length=MAX_SYMBOLS)] = ()


class TokenForm(_Part, frozen=True, kw_only=True):
    """A form of its own for tokens, instead of the values' form."""

    alphabet: Symbols
    length: Length


class ViewRule(_Part, frozen=True, kw_only=True):
    """How much of a value some readers see.

    Attributes:
        to: Principals, `kind:<kind>` or `*`. The first rule that names a reader holds.
        show: How much; `faas` is never shown plain values, whatever this says.
        pattern: For `masked`; see `cloister.mask`.
    """

    to: Annotated[tuple[Audience, ...], msgspec.Meta(min_length=1, max_length=256)]
    show: Literal["plain", "masked", "redacted", "denied"]
    pattern: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Limits(_Part, frozen=True, kw_only=True):
    """How many values one principal may have detokenized."""

    per_minute: Rate = 10_000
    per_day: Rate = 100_000


class PolicyDocument(_Part, frozen=True, kw_only=True):
    """A tokenization policy.

    Attributes:
        plan: `ff1`, `vault`, `hash` or `redact`. There is no default: what a token gives away is
            for the author to choose.
        type: What the values are. Without one, and without an alphabet, any text (not for `ff1`).
        alphabet: The symbols of `text`, or the name of an alphabet (`digits`, `hex`, `lowercase`,
            `uppercase`, `letters`, `alphanumeric`, `base64url`). For a vault without a type, those of
            its tokens.
        length, min_length, max_length: How many symbols a value has. For a vault without a type,
            `length` is that of its tokens.
        template: The layout of `template`; see `formats.TemplateFormat`.
        separators: Characters of `text` that stay where they are.
        preserve: Symbols that stay readable in the token.
        luhn: Values pass the Luhn check; their tokens pass it (`keep`) or fail it (`break`).
        issuable_only: Refuse numbers the Social Security Administration cannot have issued.
        never_issued_tokens: Draw `ssn` tokens from numbers that were never issued.
        first_year, last_year: The range of `date`.
        key: A key with purpose `tokenize` that the tokens hang on; without one, a key of the policy's own.
            Its versions and their states hold for the tokens.
        tweak: `caller` asks for a tweak with every value, such as the customer's number.
        token: A form for vault tokens and hashes.
        deterministic: Whether equal values have equal tokens. Vault tokens have not, unless asked.
        ttl_seconds: How long vault tokens live.
        mask: What `redact` leaves of a value, and what `detokenize-masked` shows where no view says.
        views: Who sees how much. With any, whoever is not named is denied.
        limits: Of detokenization, for each principal; for a `pin` the usual ones are far lower.
        purposes: What detokenization may be for. With any, a purpose must be given.
    """

    plan: PlanName
    type: TypeName | None = None
    alphabet: Symbols | None = None
    length: Length | None = None
    min_length: Length | None = None
    max_length: Length | None = None
    template: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SYMBOLS)] | None = None
    separators: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    preserve: PreserveRule = PreserveRule()
    luhn: Literal["keep", "break"] | None = None
    issuable_only: bool = False
    never_issued_tokens: bool = False
    first_year: Year | None = None
    last_year: Year | None = None
    key: Label | None = None
    tweak: Literal["policy", "caller"] = "policy"
    token: TokenForm | None = None
    deterministic: bool | None = None
    ttl_seconds: Annotated[int, msgspec.Meta(ge=1, le=100 * 366 * 86_400)] | None = None
    mask: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    views: Annotated[tuple[ViewRule, ...], msgspec.Meta(max_length=64)] = ()
    limits: Limits | None = None
    purposes: Annotated[tuple[Label, ...], msgspec.Meta(max_length=64)] = ()
