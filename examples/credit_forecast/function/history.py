"""A customer's credit history: the model's input, and the checks that it can be used.

It holds money and repayment behaviour only. Sex, age, education and marital status are not here, so no
forecast can depend on them (README, "The model").
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "AmountOutOfRange",
    "History",
    "HistoryError",
    "HistoryLength",
    "Month",
    "MonthsNotConsecutive",
    "UnknownCurrency",
    "UnknownStatus",
    "check_history",
    "month_after",
]

MIN_MONTHS: Final = 3
MAX_MONTHS: Final = 120
MAX_AMOUNT: Final = 1e12
STATUSES: Final = range(-2, 10)
_MONTH: Final = re.compile(r"[12][0-9]{3}-(0[1-9]|1[0-2])")


class HistoryError(ValueError):
    """A history that cannot be scored. Messages name the field and the rule, never a value."""


class HistoryLength(HistoryError):  # noqa: N818 - callers see the class name alone, so it says what is wrong
    """Too few or too many months."""


class MonthsNotConsecutive(HistoryError):  # noqa: N818 - as above
    """A month is malformed, missing, repeated or out of order."""


class AmountOutOfRange(HistoryError):  # noqa: N818 - as above
    """An amount is not a finite number, too large, or negative where it cannot be."""


class UnknownStatus(HistoryError):  # noqa: N818 - as above
    """A repayment status is not one of the codes."""


class UnknownCurrency(HistoryError):  # noqa: N818 - as above
    """The amounts are not in the currency the model was fitted in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One month of an account.

    Attributes:
        month: Calendar month, `YYYY-MM`.
        status: Repayment status in that month: -2 nothing owed, -1 last statement paid in full, 0 paid in
            part and on time, 1 to 8 months late, 9 later still.
        balance: Statement balance of that month; negative when the bank owes the customer.
        payment: Amount paid in that month (it pays the statement of the month before).
    """

    month: str
    status: int
    balance: float
    payment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A customer's limit and months, oldest first, without gaps.

    Attributes:
        currency: Of every amount. The model was fitted in New Taiwan dollars and refuses others.
        credit_limit: Amount of the line of credit; 0 for a closed or frozen line.
        months: At least three; the model reads the latest six.
    """

    currency: Literal["TWD"]
    credit_limit: float
    months: list[Month]


def check_history(history: History) -> None:
    """Refuse a history that cannot be scored.

    Raises:
        HistoryError: Its subclass says which rule is broken.
    """
    currency: str = history.currency
    if currency != "TWD":
        raise UnknownCurrency("currency must be TWD: the model's amounts are New Taiwan dollars")
    if not MIN_MONTHS <= len(history.months) <= MAX_MONTHS:
        raise HistoryLength(f"months must hold {MIN_MONTHS} to {MAX_MONTHS} months, oldest first")
    _check_amount(history.credit_limit, "credit_limit", low=0)
    expected: str | None = None
    for month in history.months:
        if not _MONTH.fullmatch(month.month):
            raise MonthsNotConsecutive("month must be written YYYY-MM")
        if expected not in {None, month.month}:
            raise MonthsNotConsecutive("months must follow one another, oldest first, none missing")
        expected = month_after(month.month)
        if type(month.status) is not int or month.status not in STATUSES:
            raise UnknownStatus("status must be a whole number from -2 (nothing owed) to 9 (months late)")
        _check_amount(month.balance, "balance", low=-MAX_AMOUNT)
        _check_amount(month.payment, "payment", low=0)


def month_after(month: str) -> str:
    """Return the calendar month after `YYYY-MM`."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + 1:04}-01" if number == 12 else f"{year:04}-{number + 1:02}"  # noqa: PLR2004 - December


def _check_amount(value: object, name: str, *, low: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AmountOutOfRange(f"{name} must be a number")
    if not (low <= value <= MAX_AMOUNT) or not math.isfinite(value):
        raise AmountOutOfRange(f"{name} must be finite and from {low:.0f} to {MAX_AMOUNT:.0f}")
