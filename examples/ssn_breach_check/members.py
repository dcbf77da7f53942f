"""Made-up members for the example, with numbers that the Social Security Administration never issues."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Member", "make_members"]

_NEVER_ISSUED = ("000", "666")  # areas; SSA POMS RM 10201.035
_WRITTEN = ("{0}-{1}-{2}", "{0}{1}{2}", "{0} {1} {2}")
_WITHOUT_SSN_EVERY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of the credit union; `ssn` is None where none is on file."""

    member_id: int
    ssn: str | None = field(repr=False)


def make_members(count: int, *, listed: Sequence[str], breached: int, seed: int = 1) -> list[Member]:
    """Make members with different numbers, written in the three ways people write them.

    Args:
        count: How many; one in fifty has no number.
        listed: The partner's list, as nine digits each.
        breached: How many of `listed` are members' numbers; the others are nobody's.
        seed: The same seed gives the same members on every machine.
    """
    rng = random.Random(seed)  # noqa: S311 - made-up data
    numbers = set(listed[: min(breached, count)])
    while len(numbers) < count:
        number = f"{rng.choice(_NEVER_ISSUED)}{rng.randrange(1, 100):02}{rng.randrange(1, 10_000):04}"
        if number not in listed:
            numbers.add(number)
    drawn = sorted(numbers)
    rng.shuffle(drawn)
    members = []
    for position, number in enumerate(drawn):
        written = rng.choice(_WRITTEN).format(number[:3], number[3:5], number[5:])
        absent = position % _WITHOUT_SSN_EVERY == _WITHOUT_SSN_EVERY - 1
        members.append(Member(member_id=100_000 + position, ssn=None if absent else written))
    return members
