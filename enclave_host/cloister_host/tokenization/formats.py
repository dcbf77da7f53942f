"""How values of each type are read: what is a symbol, what a separator, what stands around them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Final

from cloister.errors import ConfigurationError
from cloister_host.tokenization.checksums import iban_check_digits, iban_is_valid
from cloister_host.tokenization.shapes import Luhn, Preserve, Shape, build_shape

__all__ = [
    "ALPHABETS",
    "DIGITS",
    "ISSUABLE_SSNS",
    "SPARE_SSNS",
    "DateFormat",
    "EmailFormat",
    "Format",
    "IbanFormat",
    "RunFormat",
    "RunRules",
    "TemplateFormat",
    "ssn_format",
    "uuid_format",
]

DIGITS: Final = "0123456789"
LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
UPPER: Final = LOWER.upper()
ALPHABETS: Final[Mapping[str, str]] = {
    "digits": DIGITS,
    "hex": DIGITS + "abcdef",
    "lowercase": LOWER,
    "uppercase": UPPER,
    "letters": UPPER + LOWER,
    "alphanumeric": DIGITS + UPPER + LOWER,
    "base64url": UPPER + LOWER + DIGITS + "-_",
}
# Area 9xx was never a social security number; the groups left are not taxpayer numbers (ITIN) either.
_TAXPAYER_GROUPS: Final = frozenset({*range(50, 66), *range(70, 89), *range(90, 93), *range(94, 100)})
_SPARE_GROUPS: Final = tuple(f"{group:02}" for group in range(100) if group not in _TAXPAYER_GROUPS)
_SPARE_SSN: Final[Sequence[tuple[int, Sequence[str]]]] = (
    (0, "9"),
    (1, DIGITS),
    (2, DIGITS),
    (3, _SPARE_GROUPS),
    *((place, DIGITS) for place in range(5, 9)),
)
_ISSUABLE_SSN: Final = re.compile(r"(?!000|666|9)[0-9]{3}-?(?!00)[0-9]{2}-?(?!0000)[0-9]{4}")
ISSUABLE_SSNS: Final = 898 * 99 * 9999
SPARE_SSNS: Final = 100 * len(_SPARE_GROUPS) * 10_000

_TEMPLATE: Final[Mapping[str, str]] = {
    "9": DIGITS,
    "A": UPPER,
    "a": LOWER,
    "X": DIGITS + UPPER,
    "x": DIGITS + LOWER,
    "H": DIGITS + "ABCDEF",
    "h": DIGITS + "abcdef",
}
_TEMPLATE_TOKEN: Final = re.compile(r"\\.|[^\\]", re.DOTALL)
_TEMPLATE_TOKENS: Final = re.compile(r"(?:\\.|[^\\])+", re.DOTALL)
_MAX_SHAPES: Final = 512  # remembered for a format


class Format(ABC):
    """What all types have in common.

    Attributes:
        smallest: The shape that leaves the fewest values to tell apart; policies are judged by it.
    """

    smallest: Shape

    @abstractmethod
    def read(self, value: str) -> Shape | None:
        """The shape of a value; None if it is not of this type."""

    def valid(self, value: str) -> bool:
        """Whether a value that could be read may be tokenized; tokens need not be valid."""
        del value
        return True

    def context(self, value: str) -> str:
        """What else of a value stays readable and belongs to the tweak."""
        del value
        return ""

    def finish(self, value: str) -> str:
        """Compute the check digits of a replaced value, other than Luhn's."""
        return value


class TemplateFormat(Format):
    """Values of one or more fixed layouts.

    In a template `9` stands for a digit, `A` and `a` for a letter, `X` and `x` for a letter or digit,
    `H` and `h` for a hexadecimal digit, upper and lower case; a backslash makes the next character
    stand for itself, as all others do.

    Args:
        templates: One for each layout; they have different lengths.
        preserve: What is kept.
        extra_kept: Symbols that are kept whatever the policy says.
        fields: What tokens are drawn from, as for `build_shape`.
        rule: What a value must fulfil beyond its layout.
    """

    def __init__(
        self,
        templates: Sequence[str],
        preserve: Preserve,
        *,
        extra_kept: frozenset[int] = frozenset(),
        fields: Sequence[tuple[int, Sequence[str]]] | None = None,
        rule: Callable[[str], bool] | None = None,
    ) -> None:
        kept = Preserve(
            prefix=preserve.prefix, suffix=preserve.suffix, positions=preserve.positions | extra_kept
        )
        self._layouts: dict[int, tuple[re.Pattern[str], Shape]] = {}
        for template in templates:
            pattern, places, length = _read_template(template)
            self._layouts[length] = (re.compile(pattern), build_shape(places, kept, fields=fields))
        self._rule = rule
        self.smallest = min((shape for _, shape in self._layouts.values()), key=lambda shape: shape.domain)

    def read(self, value: str) -> Shape | None:
        """Find the layout of this length, and match it."""
        layout = self._layouts.get(len(value))
        return layout[1] if layout and layout[0].fullmatch(value) else None

    def valid(self, value: str) -> bool:
        """Apply the rule of the type."""
        return self._rule is None or self._rule(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """What `RunFormat` reads.

    Attributes:
        alphabets: One, or several that share no symbol; each symbol stays in its own.
        min_length, max_length: How many symbols, without separators.
        separators: Characters that stay where they are; never letters, digits or symbols.
        prefix: Text every value begins with.
        preserve: What is kept.
        luhn: Whether values are numbers with a Luhn digit, and what becomes of it.
    """

    alphabets: tuple[str, ...]
    min_length: int = 1
    max_length: int = 1
    separators: str = ""
    prefix: str = ""
    preserve: Preserve = field(default_factory=Preserve)
    luhn: Luhn | None = None


class RunFormat(Format):
    """Values of varying length over alphabets, with separators anywhere between."""

    def __init__(self, rules: RunRules) -> None:
        self._rules = rules
        # A value's marks: a letter for each alphabet, separators as themselves, NUL for anything else.
        self._marks = _Marks({ord(char): ord(char) for char in rules.separators})
        self._by_mark = {chr(ord("a") + n): alphabet for n, alphabet in enumerate(rules.alphabets)}
        for mark, alphabet in self._by_mark.items():
            if any(self._marks.setdefault(ord(symbol), ord(mark)) != ord(mark) for symbol in alphabet):
                raise ConfigurationError("a separator is also a symbol of the alphabet")
        self._longest = len(rules.prefix) + 2 * rules.max_length
        self._shape_of = lru_cache(maxsize=_MAX_SHAPES)(self._lay_out)
        fewest = min(self._by_mark, key=lambda mark: len(self._by_mark[mark]))
        self.smallest = self._build(fewest * rules.min_length, 0)

    def read(self, value: str) -> Shape | None:
        """Look up the shape by the marks of the value."""
        if len(value) > self._longest:
            return None
        prefix = self._rules.prefix
        if not prefix:
            return self._shape_of(value.translate(self._marks), 0)
        if not value.startswith(prefix):
            return None
        return self._shape_of(value[len(prefix) :].translate(self._marks), len(prefix))

    def _lay_out(self, marks: str, start: int) -> Shape | None:
        count = sum(mark in self._by_mark for mark in marks)
        if "\0" in marks or not self._rules.min_length <= count <= self._rules.max_length:
            return None
        return self._build(marks, start)

    def _build(self, marks: str, start: int) -> Shape:
        places = [
            (start + place, self._by_mark[mark]) for place, mark in enumerate(marks) if mark in self._by_mark
        ]
        return build_shape(places, self._rules.preserve, luhn=self._rules.luhn)


class EmailFormat(RunFormat):
    """Mail addresses: the part before the last `@` is replaced, its dots and the domain are kept."""

    _DOMAIN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

    def read(self, value: str) -> Shape | None:
        """The shape of the part before the `@`; what follows stays."""
        local, _, domain = value.rpartition("@")
        return super().read(local) if self._DOMAIN.fullmatch(domain) else None

    def context(self, value: str) -> str:
        """The domain."""
        return value[value.rindex("@") :]


class IbanFormat(RunFormat):
    """IBANs: the country is kept, the account is replaced class by class, the check digits computed."""

    _HEAD: Final = re.compile(r"[A-Z]{2}[0-9]{2}")
    _HEAD_LENGTH: Final = 4

    def read(self, value: str) -> Shape | None:
        """The shape of the account, if the check digits are right."""
        if len(value) > self._longest or self._HEAD.fullmatch(value[: self._HEAD_LENGTH]) is None:
            return None
        shape = self._shape_of(value[self._HEAD_LENGTH :].translate(self._marks), self._HEAD_LENGTH)
        return shape if shape and iban_is_valid(value.replace(" ", "")) else None

    def context(self, value: str) -> str:
        """The country."""
        return value[:2]

    def finish(self, value: str) -> str:
        """Compute the two check digits."""
        account = value[self._HEAD_LENGTH :].replace(" ", "")
        return value[:2] + iban_check_digits(value[:2], account) + value[self._HEAD_LENGTH :]


def ssn_format(preserve: Preserve, *, issuable_only: bool, never_issued_tokens: bool) -> TemplateFormat:
    """Social security numbers, with or without hyphens."""
    return TemplateFormat(
        ["999-99-9999", "999999999"],
        preserve,
        fields=_SPARE_SSN if never_issued_tokens else None,
        rule=(lambda value: _ISSUABLE_SSN.fullmatch(value) is not None) if issuable_only else None,
    )


def uuid_format(preserve: Preserve) -> TemplateFormat:
    """UUIDs in lower case (RFC 9562, section 4); version and variant are kept."""
    return TemplateFormat(["hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh"], preserve, extra_kept=frozenset({12, 16}))


class DateFormat(TemplateFormat):
    """Calendar dates, YYYY-MM-DD, of a range of years."""

    def __init__(self, first_year: int, last_year: int) -> None:
        super().__init__(["9999-99-99"], Preserve(), rule=self._is_date)
        self._first, self._last = date(first_year, 1, 1), date(last_year, 12, 31)
        self.days: Final = (self._last - self._first).days + 1

    def _is_date(self, value: str) -> bool:
        try:
            return self._first <= date.fromisoformat(value) <= self._last
        except ValueError:
            return False


class _Marks(dict[int, int]):
    """A translation table that maps what it does not know to NUL."""

    def __missing__(self, _key: int) -> int:
        return 0


def _read_template(template: str) -> tuple[str, list[tuple[int, str]], int]:
    """The regular expression of a template, where its symbols stand, and the length of its values."""
    if _TEMPLATE_TOKENS.fullmatch(template) is None:
        raise ConfigurationError("a template does not end in a lone backslash")
    pattern, places = [], []
    tokens = _TEMPLATE_TOKEN.findall(template)
    for where, token in enumerate(tokens):
        alphabet = _TEMPLATE.get(token)
        if alphabet is None:
            pattern.append(re.escape(token[-1]))
        else:
            pattern.append(f"[{alphabet}]")
            places.append((where, alphabet))
    return "".join(pattern), places, len(tokens)
