"""What one invocation may use, and how many answers may leave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from cloister.errors import ConfigurationError

__all__ = ["Budget", "Limits", "budget"]

_RANGES: Final = {
    "timeout_seconds": (1, 3600),
    "memory_mib": (16, 4096),
    "pad_milliseconds": (0, 60_000),
}
_MAX_ANSWERS: Final = 1_000_000_000
_SUBJECT: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
PERIOD_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86_400}

Period = Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one invocation may use.

    Attributes:
        timeout_seconds: Wall-clock time, calls to origins included. Above 300 it only runs as a job.
        memory_mib: Memory of the worker beyond the interpreter itself.
        pad_milliseconds: How long an invocation takes is rounded up to a multiple of this, whether it
            succeeds or fails; 0 shows how long it really took.
    """

    timeout_seconds: int = 10
    memory_mib: int = 256
    pad_milliseconds: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigurationError(
                    f"{name} of Limits cannot be used", hint=f"use a whole number, {low} to {high}"
                )

    def to_manifest(self) -> dict[str, Any]:
        """Describe these limits in JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many answers may leave in a period; counted by the host, for all digests of the name together.

    Attributes:
        period: The calendar minute, hour or day (UTC) that is counted.
        per_principal: Answers to one principal; None is without bound.
        per_subject: Answers about one subject, whoever asks; None is without bound.
        subject: The context name or text parameter that says whom an answer is about.
    """

    period: Period
    per_principal: int | None = None
    per_subject: int | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        counts = (self.per_principal, self.per_subject)
        if self.period not in PERIOD_SECONDS:
            raise ConfigurationError("budget() has no such period", hint="minute, hour or day")
        if counts == (None, None) or not all(
            count is None or (type(count) is int and 1 <= count <= _MAX_ANSWERS) for count in counts
        ):
            raise ConfigurationError(
                "budget() bounds nothing", hint="give per_principal, per_subject or both, 1 to 10**9"
            )
        if (self.subject is None) != (self.per_subject is None):
            raise ConfigurationError(
                "budget() needs subject and per_subject together",
                hint='write budget(subject="member_id", per_subject=5, period="day")',
            )
        # `str`: what was read from a manifest may be of any type.
        if self.subject is not None and not _SUBJECT.fullmatch(str(self.subject)):
            raise ConfigurationError(
                "the subject of budget() cannot be used",
                hint="name a context or a text parameter, a-z, 0-9 and '_'",
            )

    @property
    def period_seconds(self) -> int:
        """Length of the period."""
        return PERIOD_SECONDS[self.period]

    def to_manifest(self) -> dict[str, Any]:
        """Describe this budget in JSON."""
        return asdict(self)

    @classmethod
    def from_manifest(cls, described: Mapping[str, Any]) -> Budget:
        """Rebuild a budget from a manifest."""
        return cls(**described)


def budget(
    *,
    period: Period,
    per_principal: int | None = None,
    per_subject: int | None = None,
    subject: str | None = None,
) -> Budget:
    """Declare how many answers may leave: a caller who chooses the threshold of a boolean searches by it.

    An answer is spent when the function is about to run, whatever then comes of it; a repetition under
    the same idempotency key is free. In a batch, each row is an answer.

    Args:
        period: `minute`, `hour` or `day`.
        per_principal: Answers to one principal.
        per_subject: Answers about one subject, whoever asks.
        subject: The context name or text parameter that says whom an answer is about.
    """
    return Budget(period=period, per_principal=per_principal, per_subject=per_subject, subject=subject)
