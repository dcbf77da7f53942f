"""How much of one value somebody may see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast, get_args

from cloister.errors import ConfigurationError

__all__ = ["DENIED", "MASKED", "PLAIN", "REDACTED", "REDACTED_TEXT", "View"]

Show: TypeAlias = Literal["plain", "masked", "redacted", "denied"]

REDACTED_TEXT: Final = "[REDACTED]"
_MIN_HIDDEN: Final = 4  # characters; with fewer left to guess, a mask shows nothing
_MAX_PATTERN: Final = 200
_PIECE: Final = re.compile(r"\{(?:(first|last):([1-9][0-9]?)|(domain|mask))\}|(\{\{|\}\}|[^{}]+)")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A pattern, read once."""

    pieces: tuple[tuple[str, str], ...]  # ("text", literal) or (placeholder, "")
    first: int
    last: int
    domain: bool

    @classmethod
    def compile(cls, pattern: str) -> _Pattern:
        counts: dict[str, int] = {}
        pieces: list[tuple[str, str]] = []
        end = 0
        readable = 0 < len(pattern) <= _MAX_PATTERN
        for match in _PIECE.finditer(pattern):
            readable &= match.start() == end
            end = match.end()
            part, count, whole, text = match.groups()
            if text:
                pieces.append(("text", text[0] if text in {"{{", "}}"} else text))
            else:
                readable &= (name := part or whole) not in counts
                counts[name] = int(count or 0)
                pieces.append((name, ""))
        if not readable or end != len(pattern):
            raise ConfigurationError(
                "the mask pattern cannot be read",
                hint="use {first:N}, {last:N}, {domain} and {mask} at most once each, {{ and }} for braces, "
                f"and at most {_MAX_PATTERN} characters",
            )
        return cls(tuple(pieces), counts.get("first", 0), counts.get("last", 0), "domain" in counts)

    def apply(self, text: str) -> str:
        domain = "***"
        if self.domain and "@" in text:
            text, _, domain = text.rpartition("@")
        hidden = len(text) - self.first - self.last
        parts = {"domain": domain}
        if hidden >= _MIN_HIDDEN:
            parts["first"], parts["last"] = text[: self.first], text[len(text) - self.last :]
            parts["mask"] = "*" * hidden
        else:
            parts["first"], parts["last"] = "*" * self.first, "*" * self.last
            parts["mask"] = "*" * _MIN_HIDDEN
        return "".join([text or parts[kind] for kind, text in self.pieces])


@dataclass(frozen=True, slots=True)
class View:
    """One of `PLAIN`, `MASKED(pattern)`, `REDACTED`, `DENIED`.

    A pattern is text with placeholders, each used at most once: `{first:N}` and `{last:N}` show the
    ends, `{domain}` what follows the last `@` (then the ends are those of what stands before it),
    `{mask}` one `*` for each hidden character, which tells the length; `{{` and `}}` are braces.
    Where fewer than four characters would stay hidden, the ends show `*` only.

    Raises:
        ConfigurationError: The view or its pattern cannot be read.
    """

    show: Show
    pattern: str = ""
    _compiled: _Pattern | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.show not in get_args(Show):
            raise ConfigurationError("a view is plain, masked, redacted or denied")
        if self.show == "masked":
            object.__setattr__(self, "_compiled", _Pattern.compile(self.pattern))
        elif self.pattern:
            raise ConfigurationError("only a masked view has a pattern")

    @property
    def strictness(self) -> int:
        """0 for plain up to 3 for denied."""
        return get_args(Show).index(self.show)

    @classmethod
    def from_mapping(cls, document: Mapping[str, object]) -> View:
        """Read `{"show": "masked", "pattern": "***-**-{last:4}"}`; unknown members are refused."""
        show, pattern = document.get("show"), document.get("pattern", "")
        if set(document) - {"show", "pattern"} or not isinstance(pattern, str) or show not in get_args(Show):
            raise ConfigurationError('a view is {"show": "plain|masked|redacted|denied", "pattern": "..."}')
        return cls(cast("Show", show), pattern)

    def apply(self, text: str) -> str | None:
        """Show `text` in this view; None where it is denied."""
        if self._compiled is not None:
            return self._compiled.apply(text)
        if self.show == "plain":
            return text
        return REDACTED_TEXT if self.show == "redacted" else None


PLAIN: Final = View("plain")
REDACTED: Final = View("redacted")
DENIED: Final = View("denied")


def MASKED(pattern: str) -> View:  # noqa: N802 - reads as one of four, beside PLAIN, REDACTED and DENIED
    """A view through a pattern; see `View`."""
    return View("masked", pattern)
