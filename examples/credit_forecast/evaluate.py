"""How well the coefficients do on the customers that were kept for testing, beside simple baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from customers import Customer
from history import History
from model import LEVEL, balance_interval, forecast
from numpy.typing import NDArray

__all__ = ["Balances", "Defaults", "Figures", "evaluate", "report"]

Array = NDArray[np.float64]
_BANDS = ((0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.5), (0.5, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Quality of default probabilities: area under the ROC curve, and mean squared error (Brier)."""

    auc: float
    brier: float

    @classmethod
    def of(cls, chances: Array, outcomes: Array) -> Defaults:
        """Measure `chances` against what happened."""
        return cls(auc=_auc(chances, outcomes), brier=float(((chances - outcomes) ** 2).mean()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Balances:
    """Quality of balance forecasts, in New Taiwan dollars.

    Attributes:
        mean_error: Mean absolute error.
        median_error: Median absolute error.
        coverage: Share of balances inside the interval.
        mean_width: Mean width of the interval.
        median_width: Median width of the interval.
        score: Interval score (Gneiting and Raftery, JASA 2007): width plus a fine for each miss; lower
            is better.
    """

    mean_error: float
    median_error: float
    coverage: float
    mean_width: float
    median_width: float
    score: float

    @classmethod
    def of(cls, intervals: Array, balances: Array) -> Balances:
        """Measure rows of (low, point, high) against what happened."""
        low, point, high = intervals.T
        error, width = np.abs(balances - point), high - low
        missed = np.maximum(low - balances, 0) + np.maximum(balances - high, 0)
        return cls(
            mean_error=float(error.mean()),
            median_error=float(np.median(error)),
            coverage=float((missed == 0).mean()),
            mean_width=float(width.mean()),
            median_width=float(np.median(width)),
            score=float((width + missed * 2 / (1 - LEVEL)).mean()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What fit.py prints; every figure is over the customers of the `test` part.

    The gains are the mean improvement on the baseline and its standard error, customer by customer.
    """

    customers: int
    default_rate: float
    default: Defaults
    last_status: Defaults
    three_months_default: Defaults
    bands: list[tuple[float, float, int, float, float]]
    balance: Balances
    last_value: Balances
    three_months_balance: Balances
    a_month_earlier: Balances
    brier_gain: tuple[float, float]
    error_gain: tuple[float, float]


def evaluate(
    customers: Sequence[Customer],
    coefficients: Mapping[str, Any],
    *,
    balance_of_a_month_earlier: Mapping[str, Any],
) -> Figures:
    """Measure coefficients, through the model's own functions, on the `test` part."""
    known = [customer for customer in customers if customer.part != "test"]
    tested = [customer for customer in customers if customer.part == "test"]
    outcomes = np.array([customer.defaulted for customer in tested], dtype=float)
    balances = np.array([customer.target for customer in tested])

    def chances(view: Callable[[History], History]) -> Array:
        scored = [forecast(view(customer.history), coefficients) for customer in tested]
        return np.array([each.probability_of_default for each in scored])

    def intervals(weights: Mapping[str, Any], view: Callable[[History], History] = _whole) -> Array:
        return np.array([balance_interval(view(customer.earlier), weights) for customer in tested])

    chance, base_chance = chances(_whole), _last_status(known, tested)
    interval, base_interval = intervals(coefficients["balance"]), _last_value(known, tested)
    return Figures(
        customers=len(tested),
        default_rate=float(outcomes.mean()),
        default=Defaults.of(chance, outcomes),
        last_status=Defaults.of(base_chance, outcomes),
        three_months_default=Defaults.of(chances(_three_months), outcomes),
        bands=_bands(chance, outcomes),
        balance=Balances.of(interval, balances),
        last_value=Balances.of(base_interval, balances),
        three_months_balance=Balances.of(intervals(coefficients["balance"], _three_months), balances),
        a_month_earlier=Balances.of(intervals(balance_of_a_month_earlier), balances),
        brier_gain=_gain((base_chance - outcomes) ** 2, (chance - outcomes) ** 2),
        error_gain=_gain(abs(base_interval[:, 1] - balances), abs(interval[:, 1] - balances)),
    )


def report(figures: Figures) -> str:
    """The figures as text."""
    default, balance = figures.default, figures.balance
    lines = [
        f"{figures.customers} customers kept for testing, {figures.default_rate:.1%} of them defaulted",
        "",
        f"{'probability of default':<36}{'AUC':>8}{'Brier':>9}",
        *(
            f"  {name:<34}{row.auc:>8.3f}{row.brier:>9.4f}"
            for name, row in (
                ("model", default),
                ("baseline: rate by last status", figures.last_status),
                ("model, three months of history", figures.three_months_default),
            )
        ),
        "  Brier score better than the baseline's by {:.4f} (standard error {:.4f})".format(
            *figures.brier_gain
        ),
        "",
        f"{'calibration: predicted':<24}{'customers':>12}{'mean predicted':>16}{'defaulted':>12}",
        *(
            f"  {f'{low:.0%} to {high:.0%}':<22}{count:>12}{predicted:>16.1%}{happened:>12.1%}"
            for low, high, count, predicted, happened in figures.bands
        ),
        "",
        f"{'next balance, NT$':<36}{'MAE':>8}{'median':>8}{'inside':>8}{'width':>8}{'median':>8}{'score':>8}",
        *(
            f"  {name:<34}{row.mean_error:>8.0f}{row.median_error:>8.0f}{row.coverage:>8.1%}"
            f"{row.mean_width:>8.0f}{row.median_width:>8.0f}{row.score:>8.0f}"
            for name, row in (
                ("model", balance),
                ("baseline: last balance", figures.last_value),
                ("model, three months of history", figures.three_months_balance),
                ("model, fitted one month earlier", figures.a_month_earlier),
            )
        ),
        "  MAE better than the baseline's by {:.0f} (standard error {:.0f})".format(*figures.error_gain),
    ]
    return "\n".join(lines)


def _whole(history: History) -> History:
    return history


def _three_months(history: History) -> History:
    return replace(history, months=history.months[-3:])


def _last_status(known: Sequence[Customer], tested: Sequence[Customer]) -> Array:
    """The default rate of each last status; of everyone for a status never seen."""
    seen: dict[int, list[bool]] = defaultdict(list)
    for customer in known:
        seen[customer.history.months[-1].status].append(customer.defaulted)
    everyone = np.mean([customer.defaulted for customer in known])
    rates = {status: np.mean(outcomes) for status, outcomes in seen.items()}
    return np.array([rates.get(customer.history.months[-1].status, everyone) for customer in tested])


def _last_value(known: Sequence[Customer], tested: Sequence[Customer]) -> Array:
    """The last balance, and the interval that held its share of changes in the known part."""
    changes = [customer.target - customer.earlier.months[-1].balance for customer in known]
    low, high = np.quantile(changes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return np.array(
        [[last + low, last, last + high] for last in (c.earlier.months[-1].balance for c in tested)]
    )


def _gain(baseline: Array, model: Array) -> tuple[float, float]:
    gain = baseline - model
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))


def _auc(chances: Array, outcomes: Array) -> float:
    """The chance that a defaulter is ranked above a non-defaulter; ties count half."""
    bad, good = chances[outcomes == 1], np.sort(chances[outcomes == 0])
    wins = np.searchsorted(good, bad, side="left") + np.searchsorted(good, bad, side="right")
    return float(wins.sum() / (2 * len(bad) * len(good)))


def _bands(chances: Array, outcomes: Array) -> list[tuple[float, float, int, float, float]]:
    found = []
    for low, high in _BANDS:
        inside = (chances >= low) & (chances < high)
        if inside.any():
            found.append(
                (low, high, int(inside.sum()), float(chances[inside].mean()), float(outcomes[inside].mean()))
            )
    return found
