"""Claims of a verified credential, and what is demanded of them. Absent is never equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cloister.errors import ConfigurationError
from cloister_host.store.canonical import canonical, utf8

__all__ = ["Wanted", "check_wanted", "could_both_match", "first_mismatch", "flat"]

MAX_CLAIMS: Final = 32
MAX_DEPTH: Final = 3
MAX_TEXT_CHARS: Final = 2048

Wanted = Mapping[str, Any]
"""Claims that must be there with exactly these values; an object asks for members of an object, as in
`{"sub": "arn:...", "https://sts.amazonaws.com/": {"lambda_source_function_arn": "arn:..."}}`."""

_ABSENT: Final = object()


def check_wanted(wanted: Wanted) -> None:
    """Refuse demands that are not texts, numbers, booleans or objects of those.

    Raises:
        ConfigurationError: They are something else, or too many, too deep or too long.
    """
    count = 0
    for path, value in _leaves(wanted):
        count += 1
        sizes = [len(utf8(name)) for name in path] + ([len(utf8(value))] if isinstance(value, str) else [])
        known = isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**53)
        if not known or max(sizes) > MAX_TEXT_CHARS or count > MAX_CLAIMS or len(path) > MAX_DEPTH:
            raise ConfigurationError(
                "claims are texts, whole numbers or booleans by name, nested in objects at most twice",
                hint=f"at most {MAX_CLAIMS} of them",
            )
    if count == 0:
        raise ConfigurationError("no claim is named", hint='for example {"sub": "..."}')


def first_mismatch(claims: Mapping[str, Any], wanted: Wanted) -> str | None:
    """The first demand that the claims do not meet, by its path, or None. Never a value."""
    for path, value in _leaves(wanted):
        found: Any = claims
        for name in path:
            found = found.get(name, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        # `True == 1` in Python; a claim is equal only as the same JSON.
        if type(found) is not type(value) or found != value:
            return ".".join(path)
    return None


def flat(wanted: Wanted) -> Iterator[tuple[str, str | int]]:
    """The demands by dotted path, for people to read."""
    for path, value in _leaves(wanted):
        yield ".".join(path), value


def could_both_match(one: Wanted, two: Wanted) -> bool:
    """Whether some claims would meet both demands: they contradict each other nowhere."""
    merged = dict(_leaves(one))
    for path, value in _leaves(two):
        if path in merged and canonical(merged[path]) != canonical(value):
            return False
        # Nothing is a text and an object with members at the same time.
        if any(path != other and path[: len(other)] == other[: len(path)] for other in merged):
            return False
    return True


def _leaves(wanted: Wanted, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in wanted.items():
        path = (*prefix, name)
        if isinstance(value, Mapping) and len(path) < MAX_DEPTH + 1:
            if not value:
                yield path, None
            yield from _leaves(value, path)
        else:
            yield path, value
