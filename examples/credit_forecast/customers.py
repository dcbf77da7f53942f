"""The data set as fit.py needs it: histories, outcomes, and who fits, calibrates and tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from histories import DATA, history_from_row, outcome_from_row, read_rows
from history import History

__all__ = ["Customer", "read_customers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """One customer: six months, and whether the seventh was a default."""

    id: str
    history: History
    defaulted: bool

    @property
    def part(self) -> str:
        """`fit` (six tenths), `calibrate` or `test` (two tenths each), by a hash of the id."""
        digest = hashlib.sha256(f"credit-forecast/{self.id}".encode()).digest()
        tenth = int.from_bytes(digest[:8], "big") % 10
        return (("fit",) * 6 + ("calibrate",) * 2 + ("test",) * 2)[tenth]

    @property
    def earlier(self) -> History:
        """All months but the last, of which nothing is known when its balance is forecast."""
        return replace(self.history, months=self.history.months[:-1])

    @property
    def target(self) -> float:
        """Balance of the last month."""
        return self.history.months[-1].balance

    def a_month_earlier(self) -> Customer:
        """The same customer as known one month before."""
        return replace(self, history=self.earlier)


def read_customers(path: Path = DATA) -> list[Customer]:
    """Read the data set."""
    return [
        Customer(id=row["ID"], history=history_from_row(row), defaulted=outcome_from_row(row))
        for row in read_rows(path)
    ]
