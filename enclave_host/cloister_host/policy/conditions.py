"""Conditions of a grant: all of them have to hold, and what the request does not say never does."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from cloister.errors import ConfigurationError
from cloister_host.identity.caller import Caller
from cloister_host.identity.claims import check_wanted, first_mismatch

__all__ = ["Conditions", "Facts", "check_conditions", "has_ended", "unmet"]

MAX_NAMED: Final = 32
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_PURPOSE: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FUNCTION_PREFIX: Final = "function:"


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a grant counts.

    Attributes:
        not_before: Epoch seconds; 0 for no bound.
        not_after: Epoch seconds, from which on it counts no more; 0 for no bound.
        hours: A daily window in UTC, `08:00-18:00`; it may run over midnight.
        days: Days of the week in UTC, `mon` to `sun`.
        purposes: The caller has to state one of these.
        functions: The confidential function concerned has to have one of these digests: the one invoked, or
            the one that acts.
        claims: The caller's issuer has to say this of it, as in bindings.
    """

    not_before: int = 0
    not_after: int = 0
    hours: str = ""
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    purposes: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    claims: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What conditions are held against.

    Attributes:
        now: Epoch seconds.
        digest: Finds the digest of the function that is to be invoked; empty if there is none.
    """

    caller: Caller
    now: float
    digest: Callable[[], str]


def check_conditions(conditions: Conditions) -> None:
    """Refuse conditions that could never hold, or never be meant.

    Raises:
        ConfigurationError: One of them.
    """
    if conditions.hours and not _HOURS.fullmatch(conditions.hours):
        raise ConfigurationError("the hours of a grant are written 08:00-18:00, in UTC")
    if conditions.not_after and conditions.not_after <= conditions.not_before:
        raise ConfigurationError("the grant would end before it begins")
    if min(conditions.not_before, conditions.not_after) < 0:
        raise ConfigurationError("times of a grant are seconds since 1970")
    if max(len(conditions.purposes), len(conditions.functions)) > MAX_NAMED:
        raise ConfigurationError(f"at most {MAX_NAMED} purposes or functions")
    if not all(_PURPOSE.fullmatch(purpose) for purpose in conditions.purposes):
        raise ConfigurationError("purposes are lower-case letters, digits and hyphens")
    if not all(_DIGEST.fullmatch(digest) for digest in conditions.functions):
        raise ConfigurationError("functions are named by digest: 64 lower-case hexadecimal digits")
    if conditions.claims:
        check_wanted(conditions.claims)


def has_ended(conditions: Conditions, now: float) -> bool:
    """Whether the grant will never count again."""
    return conditions.not_after != 0 and now >= conditions.not_after


def unmet(conditions: Conditions, facts: Facts) -> str | None:
    """The first condition that does not hold, in words, or None. Never the value of a claim."""
    return next(_failures(conditions, facts), None)


def _failures(conditions: Conditions, facts: Facts) -> Iterator[str]:
    now = dt.datetime.fromtimestamp(facts.now, dt.UTC)
    if facts.now < conditions.not_before:
        yield "it has not begun"
    if has_ended(conditions, facts.now):
        yield "it has ended"
    if conditions.hours and not _within(conditions.hours, now.hour * 60 + now.minute):
        yield f"it counts from {conditions.hours} UTC"
    if conditions.days and _DAYS[now.weekday()] not in conditions.days:
        yield f"it counts on {', '.join(conditions.days)} (UTC)"
    if conditions.purposes and facts.caller.purpose not in conditions.purposes:
        yield f"the purpose has to be {' or '.join(conditions.purposes)}"
    if conditions.functions and _digest(facts) not in conditions.functions:
        yield "the function has another digest"
    if conditions.claims and (claim := first_mismatch(facts.caller.claims, conditions.claims)) is not None:
        yield f"the claim {claim} is absent or another"


def _within(hours: str, minute: int) -> bool:
    match = _HOURS.fullmatch(hours)
    if match is None:
        return False
    begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


def _digest(facts: Facts) -> str:
    if facts.caller.kind == "function":
        return facts.caller.principal.removeprefix(_FUNCTION_PREFIX)
    return facts.digest()
