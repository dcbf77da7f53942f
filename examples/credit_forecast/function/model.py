"""The credit model: default probability, next balance and the reasons, in plain Python.

*Default* is a logistic regression on six features. *Balance* is the last balance plus a linear function
of nine amounts, with one set of weights per kind of account; its interval is split-conformal. All weights
are in `coefficients.json`, written by `fit.py`; README.md shows how well they do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from history import History, Month, check_history, month_after

__all__ = [
    "Forecast",
    "Reason",
    "balance_interval",
    "balance_reach",
    "balance_terms",
    "default_features",
    "forecast",
    "next_balance",
    "reach_terms",
]

LEVEL: Final = 0.8
DEFAULT_MONTHS: Final = 6  # look-back of the default model
BALANCE_MONTHS: Final = 5  # look-back of the balance model: the sixth month was its target
MAX_REASONS: Final = 4  # as lenders give (12 CFR 1002.9, official interpretation 9(b)(2)-1)
MIN_REASON_LOG_ODDS: Final = 0.05
_MAX_MEAN_PAYMENT: Final = 200_000.0
_PAYMENT_OFFSET: Final = 350.0
_MAX_UTILISATION: Final = 1.2
_MAX_OF_LIMIT: Final = 1.25
_MIN_REACH: Final = 100.0

Coefficients = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why the default probability is higher than that of an average customer.

    Attributes:
        code: Stable code, R01 to R06.
        text: The reason in words, with this customer's months.
        log_odds: How much it adds to the log-odds of default; reasons are ordered by it.
    """

    code: str
    text: str
    log_odds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a credit officer gets.

    Attributes:
        month: The month that is forecast, `YYYY-MM`.
        next_balance: Expected (median) statement balance, same currency as the history.
        interval_low: Lower end of the prediction interval of the balance.
        interval_high: Upper end.
        interval_level: Share of customers whose balance the interval holds.
        probability_of_default: Of a payment default in that month, in (0, 1).
        reasons: At most four, strongest first; empty when nothing speaks against the customer.
        model: Name and version of the coefficients.
    """

    month: str
    next_balance: float
    interval_low: float
    interval_high: float
    interval_level: float
    probability_of_default: float
    reasons: list[Reason]
    model: str


def forecast(history: History, coefficients: Coefficients | None = None) -> Forecast:
    """Forecast the month after a history.

    Raises:
        HistoryError: The history cannot be scored.
    """
    check_history(history)
    weights = _shipped() if coefficients is None else coefficients
    features = default_features(history)
    pushes = {
        name: term["weight"] * (features[name] - term["mean"])
        for name, term in weights["default"]["terms"].items()
    }
    log_odds = weights["default"]["intercept"] + math.fsum(pushes.values())
    low, balance, high = balance_interval(history, weights["balance"])
    return Forecast(
        month=month_after(history.months[-1].month),
        next_balance=round(balance, 2),
        interval_low=round(low, 2),
        interval_high=round(high, 2),
        interval_level=LEVEL,
        probability_of_default=min(max(round(1 / (1 + math.exp(-log_odds)), 4), 0.0001), 0.9999),
        reasons=_reasons(history, pushes),
        model=weights["model"],
    )


@cache
def _shipped() -> Coefficients:
    loaded: Coefficients = json.loads(Path(__file__).with_name("coefficients.json").read_text("utf-8"))
    return loaded


# Default


def default_features(history: History) -> dict[str, float]:
    """The features of the default model, each bounded whatever the history holds."""
    months = history.months[-DEFAULT_MONTHS:]
    last = months[-1].status
    mean_payment = min(fmean(month.payment for month in months), _MAX_MEAN_PAYMENT)
    return {
        "very_late_now": float(last >= 2),  # noqa: PLR2004 - two months or more
        "carried_on_time_now": float(last == 0),
        "late_before": fmean(month.status >= 1 for month in months[:-1]),
        "ever_late": float(any(month.status >= 1 for month in months)),
        "utilisation": fmean(_utilisation(month, history.credit_limit) for month in months),
        "payments": math.log(mean_payment + _PAYMENT_OFFSET),
    }


def _utilisation(month: Month, limit: float) -> float:
    """Share of the limit in use, 0 to 1.2; a balance on a zero limit is the most."""
    if month.balance <= 0:
        return 0.0
    return min(month.balance / limit, _MAX_UTILISATION) if limit > 0 else _MAX_UTILISATION


def _reasons(history: History, pushes: Mapping[str, float]) -> list[Reason]:
    """Group what raises the log-odds above an average customer's into reasons, strongest first."""
    months = history.months[-DEFAULT_MONTHS:]
    last, earlier = months[-1], [month for month in months[:-1] if month.status >= 1]
    now = pushes["very_late_now"] + pushes["carried_on_time_now"]
    before = pushes["late_before"]
    if earlier:
        before += pushes["ever_late"]
    elif last.status >= 1:
        now += pushes["ever_late"]
    payment = fmean(month.payment for month in months)
    use = fmean(_utilisation(month, history.credit_limit) for month in months)
    late = "one month" if last.status == 1 else f"{last.status} months"
    found = [
        ("R01", f"Payment {late} late in {last.month}", now)
        if last.status >= 1
        else ("R02", f"No balance carried and paid on time in {last.month}", now),
        ("R03", f"Late payments earlier: {', '.join(m.month for m in earlier)}", before),
        ("R04", f"High use of the credit limit: {use:.0%} on average", pushes["utilisation"]),
        ("R05", f"Small payments: {payment:,.0f} a month on average", pushes["payments"])
        if any(month.balance > 0 for month in months)
        else ("R06", "Nothing owed in the months seen: little repayment record", pushes["payments"]),
    ]
    reasons = [
        Reason(code=code, text=text, log_odds=round(push, 3))
        for code, text, push in found
        if push >= MIN_REASON_LOG_ODDS
    ]
    return sorted(reasons, key=lambda reason: (-reason.log_odds, reason.code))[:MAX_REASONS]


# Balance


def balance_interval(history: History, weights: Coefficients) -> tuple[float, float, float]:
    """Return (low, point, high); low <= point <= high whatever the history holds."""
    point = next_balance(history, weights)
    below, above = (reach * weights["stretch"] for reach in balance_reach(history, weights))
    # Only customers whom the bank has owed before are expected below zero.
    return max(point - below, _lowest(history)), point, point + above


def next_balance(history: History, weights: Coefficients) -> float:
    """The median of the next balance, kept between the lowest seen (or zero) and the limit plus a quarter."""
    months, limit = history.months[-BALANCE_MONTHS:], history.credit_limit
    point = months[-1].balance + _dot(weights["change"], balance_terms(history))
    highest = _MAX_OF_LIMIT * max(limit, *(month.balance for month in months))
    return min(max(point, _lowest(history)), highest)


def balance_reach(history: History, weights: Coefficients) -> tuple[float, float]:
    """How far below and above the point the next balance may be, before the conformal stretch."""
    terms = reach_terms(history)
    return (
        max(_dot(weights["below"], terms), _MIN_REACH),
        max(_dot(weights["above"], terms), _MIN_REACH),
    )


def _lowest(history: History) -> float:
    return min(0.0, *(month.balance for month in history.months[-BALANCE_MONTHS:]))


def balance_terms(history: History) -> dict[str, float]:
    """Amounts the change of balance is linear in: each of nine, once per kind of account.

    Every term scales with the money in the history, so the forecast does too.
    """
    months, limit = history.months[-BALANCE_MONTHS:], history.credit_limit
    balances = [month.balance for month in months]
    payments = [month.payment for month in months]
    changes = [after - before for before, after in pairwise(balances)]
    # What was spent is what the balance grew by plus what was paid off.
    spent = [change + paid for change, paid in zip(changes, payments[1:], strict=True)]
    amounts = {
        "last balance": balances[-1],
        "mean balance": fmean(balances),
        "median balance": median(balances),
        "last change": changes[-1],
        "mean spending": fmean(spent),
        "median spending": median(spent),
        "last payment": payments[-1],
        "mean payment": fmean(payments),
        "median payment": median(payments),
    }
    status = months[-1].status
    kinds = {
        "paid in full": float(status == -1),
        "nothing owed": float(status == -2),  # noqa: PLR2004 - the code of a month without use
        "carried": float(status == 0),
        "late": float(status >= 1),
        "utilisation": _utilisation(months[-1], limit),
        "months carried": fmean(month.status == 0 for month in months),
    }
    return {
        f"{kind} x {name}": share * amount
        for kind, share in kinds.items()
        for name, amount in amounts.items()
    }


def reach_terms(history: History) -> dict[str, float]:
    """Amounts that tell how far off the next balance may be."""
    months, limit = history.months[-BALANCE_MONTHS:], history.credit_limit
    balances = [month.balance for month in months]
    changes = [abs(after - before) for before, after in pairwise(balances)]
    return {
        "thousand": 1000.0,
        "limit": limit,
        "headroom": max(limit - balances[-1], 0.0),
        "last balance": abs(balances[-1]),
        "largest balance": max(map(abs, balances)),
        "last change": changes[-1],
        "mean change": fmean(changes),
        "last payment": months[-1].payment,
        "mean payment": fmean(month.payment for month in months),
    }


def _dot(weights: Mapping[str, float], terms: Mapping[str, float]) -> float:
    return math.fsum(weight * terms[name] for name, weight in weights.items())
