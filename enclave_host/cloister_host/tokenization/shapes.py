"""The layout of a value: which of its symbols are replaced, which are kept, which are computed.

Values that look alike (the same length, separators in the same places) share a shape, so a column
is taken apart and put together by a few slices a value.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal, TypeAlias

from cloister_host.tokenization.checksums import luhn_digit, luhn_sum

__all__ = ["Luhn", "Preserve", "Shape", "build_shape"]

Luhn: TypeAlias = Literal["keep", "break"]
LUHN_TOTAL: Final[Mapping[Luhn, int]] = {"keep": 0, "break": 5}  # of a token; a value's is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preserve:
    """What of a value stays readable in its token; places count symbols from 0, without separators."""

    prefix: int = 0
    suffix: int = 0
    positions: frozenset[int] = frozenset()

    def places(self, count: int) -> frozenset[int]:
        """The preserved places of a value of `count` symbols."""
        ends = {*range(min(self.prefix, count)), *range(max(count - self.suffix, 0), count)}
        return frozenset(ends | {place for place in self.positions if place < count})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One layout.

    Attributes:
        alphabets: Of the replaced symbols, in order.
        fields: What a random token is drawn from: the texts that may stand in each field.
        free: Where the replaced symbols stand.
        kept: Where the preserved symbols stand (separators are neither).
        symbols: Where any symbol stands.
        check: Where the symbol computed by Luhn stands, or None.
        check_place: Its place among the symbols.
    """

    alphabets: tuple[str, ...]
    fields: tuple[Sequence[str], ...]
    free: tuple[slice, ...]
    kept: tuple[slice, ...]
    symbols: tuple[slice, ...]
    check: int | None = None
    check_place: int = 0
    domain: int = field(init=False)
    tokens: int = field(init=False)
    _pieces: tuple[tuple[bool, slice], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", math.prod(map(len, self.alphabets)))
        object.__setattr__(self, "tokens", math.prod(map(len, self.fields)))
        # Alternate what is copied from the value and what comes from the replacement.
        pieces: list[tuple[bool, slice]] = []
        end = taken = 0
        for run in self.free:
            if run.start > end:
                pieces.append((False, slice(end, run.start)))
            length = run.stop - run.start
            pieces.append((True, slice(taken, taken + length)))
            end, taken = run.stop, taken + length
        pieces.append((False, slice(end, None)))
        object.__setattr__(self, "_pieces", tuple(pieces))

    def take(self, values: Sequence[str]) -> list[str]:
        """The symbols of each value that are replaced."""
        return _gather(values, self.free)

    def preserved(self, values: Sequence[str]) -> list[str]:
        """The symbols of each value that are kept."""
        return _gather(values, self.kept)

    def only_symbols(self, values: Sequence[str]) -> list[str]:
        """The values without separators."""
        return _gather(values, self.symbols)

    def luhn_sums(self, values: Sequence[str]) -> list[int]:
        """The Luhn sum of each value, separators aside."""
        return [luhn_sum(digits) for digits in self.only_symbols(values)]

    def replace(self, values: Sequence[str], replacements: Sequence[str], total: int = 0) -> list[str]:
        """Put replacements in the place of what `take` takes; Luhn shapes get the sum `total`."""
        columns = [[text[run] for text in (replacements if new else values)] for new, run in self._pieces]
        out = list(map("".join, zip(*columns, strict=True)))
        if self.check is None:
            return out
        return [
            f"{text[: self.check]}{luhn_digit(digits, self.check_place, total)}{text[self.check + 1 :]}"
            for text, digits in zip(out, self.only_symbols(out), strict=True)
        ]

    def draw(self) -> str:
        """A random replacement, uniform over `tokens`."""
        number = secrets.randbelow(self.tokens)
        out = []
        for texts in self.fields:
            number, place = divmod(number, len(texts))
            out.append(texts[place])
        return "".join(out)


def build_shape(
    places: Sequence[tuple[int, str]],
    preserve: Preserve,
    *,
    luhn: Luhn | None = None,
    fields: Sequence[tuple[int, Sequence[str]]] | None = None,
) -> Shape:
    """Lay out values whose symbols stand at these places.

    Args:
        places: For each symbol where it stands, and its alphabet.
        preserve: What is kept.
        luhn: Whether one digit is computed. If the last digit is not kept it is that one, else the
            last one that is not.
        fields: What tokens are drawn from, as (first symbol, texts), where it is less than the alphabets.
    """
    kept = preserve.places(len(places))
    free = [place for place in range(len(places)) if place not in kept]
    check = free.pop() if luhn and free else None
    if fields is None:
        fields = [(place, places[place][1]) for place in range(len(places))]
    return Shape(
        alphabets=tuple(places[place][1] for place in free),
        fields=tuple(texts for place, texts in fields if place in free),
        free=_runs([places[place][0] for place in free]),
        kept=_runs([places[place][0] for place in sorted(kept)]),
        symbols=_runs([where for where, _ in places]),
        check=None if check is None else places[check][0],
        check_place=check or 0,
    )


def _gather(values: Sequence[str], runs: Sequence[slice]) -> list[str]:
    """The parts of each value at `runs`, joined."""
    if len(runs) == 1:
        return [value[runs[0]] for value in values]
    if not runs:
        return [""] * len(values)
    return list(map("".join, zip(*([value[run] for value in values] for run in runs), strict=True)))


def _runs(places: Sequence[int]) -> tuple[slice, ...]:
    """Slices over ascending places."""
    runs = []
    for _, group in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        run = [place for _, place in group]
        runs.append(slice(run[0], run[-1] + 1))
    return tuple(runs)
