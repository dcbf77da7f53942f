"""Fit the credit model and show how well it does on customers it has not seen.

    python fit.py            # fit, print the figures, write function/coefficients.json
    python fit.py --check    # fit, print the figures, fail if the committed coefficients differ

Customers are divided by a hash of their id, not by chance: six tenths fit, two tenths set the width of
the interval, two tenths test. The same data gives the same coefficients everywhere. Needs NumPy; the
fitted model does not.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from customers import Customer, read_customers
from evaluate import evaluate, report
from model import LEVEL, balance_reach, balance_terms, default_features, next_balance, reach_terms
from numpy.typing import NDArray

Array = NDArray[np.float64]
COEFFICIENTS = Path(__file__).resolve().parent / "function" / "coefficients.json"
MODEL = "credit-forecast 1"
RISK_RAISING = {"very_late_now", "late_before", "ever_late", "utilisation"}
RISK_LOWERING = {"carried_on_time_now", "payments"}
DIGITS = 6


def fit(customers: Sequence[Customer]) -> dict[str, Any]:
    """Fit all coefficients: default on `fit` and `calibrate`, balance on `fit`, its interval on both."""
    fitting = [customer for customer in customers if customer.part == "fit"]
    calibrating = [customer for customer in customers if customer.part == "calibrate"]
    return {
        "model": MODEL,
        "default": fit_default(fitting + calibrating),
        "balance": fit_balance(fitting, calibrating),
    }


def fit_default(customers: Sequence[Customer]) -> dict[str, Any]:
    """Logistic regression by Newton's method (iteratively reweighted least squares).

    Raises:
        ValueError: A weight came out with a sign that its reason code could not explain.
    """
    names, features = _columns([default_features(customer.history) for customer in customers])
    outcome = np.array([customer.defaulted for customer in customers], dtype=float)
    means, scales = features.mean(axis=0), features.std(axis=0)
    design = np.column_stack([np.ones(len(outcome)), (features - means) / scales])
    ridge = np.diag([0.0] + [1.0] * len(names))  # one pseudo-observation a weight, against 4,800 real ones
    weights = np.zeros(design.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (outcome - chance) - ridge @ weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + ridge
        weights += np.linalg.solve(curvature, gradient)
    terms = {
        name: {"weight": _rounded(weight / scale), "mean": _rounded(mean)}
        for name, weight, mean, scale in zip(names, weights[1:], means, scales, strict=True)
    }
    for name, term in terms.items():
        if (term["weight"] > 0) != (name in RISK_RAISING) or name not in RISK_RAISING | RISK_LOWERING:
            raise ValueError(f"{name} has a weight of the wrong sign")
    return {"intercept": _rounded(weights[0]), "terms": terms}


def fit_balance(fitting: Sequence[Customer], calibrating: Sequence[Customer]) -> dict[str, Any]:
    """Median regression of the change of balance, and a split-conformal interval around it."""
    names, terms = _columns([balance_terms(customer.earlier) for customer in fitting])
    change = np.array([customer.target - customer.earlier.months[-1].balance for customer in fitting])
    weights = dict(zip(names, map(_rounded, quantile_regression(terms, change, 0.5)), strict=True))
    fitted: dict[str, Any] = {"change": weights}
    errors = np.array([customer.target - next_balance(customer.earlier, fitted) for customer in fitting])
    names, reaches = _columns([reach_terms(customer.earlier) for customer in fitting])
    for side, sign in (("below", -1), ("above", 1)):
        reach = quantile_regression(reaches, sign * errors, (1 + LEVEL) / 2)
        fitted[side] = dict(zip(names, map(_rounded, reach), strict=True))
    scores = sorted(_score(customer, fitted) for customer in calibrating)
    # The rank with the finite-sample correction of split conformal prediction (Lei et al., JASA 2018).
    fitted["stretch"] = _rounded(scores[math.ceil((len(scores) + 1) * LEVEL) - 1])
    return fitted


def _score(customer: Customer, fitted: Mapping[str, Any]) -> float:
    """The stretch that would just take this customer's balance into the interval."""
    error = customer.target - next_balance(customer.earlier, fitted)
    below, above = balance_reach(customer.earlier, fitted)
    return error / above if error > 0 else -error / below


def quantile_regression(terms: Array, target: Array, level: float) -> Array:
    """Linear quantile regression (Koenker and Bassett, 1978) by iteratively reweighted least squares."""
    scales = np.abs(terms).mean(axis=0)
    scales[scales == 0] = 1.0
    design, typical = terms / scales, np.abs(target).mean()
    weights = np.zeros(design.shape[1])
    for step in range(200):
        error = target - design @ weights
        smoothing = max(1.0, typical * 0.9**step)
        pull = np.where(error > 0, level, 1 - level) / np.maximum(np.abs(error), smoothing)
        weighted = design * pull[:, None]
        curvature = weighted.T @ design
        curvature += 1e-9 * np.trace(curvature) * np.eye(len(weights))
        weights = np.linalg.solve(curvature, weighted.T @ target)
    return np.asarray(weights / scales)


def _columns(rows: Sequence[Mapping[str, float]]) -> tuple[list[str], Array]:
    names = list(rows[0])
    return names, np.array([[row[name] for name in names] for row in rows], dtype=float)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def same_coefficients(ours: Any, theirs: Any) -> bool:
    """Whether two sets agree to one part in 10,000: linear algebra libraries differ in the last digits."""
    if isinstance(ours, Mapping):
        return (
            isinstance(theirs, Mapping)
            and ours.keys() == theirs.keys()
            and all(same_coefficients(ours[name], theirs[name]) for name in ours)
        )
    if isinstance(ours, float):
        return isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-6)
    return bool(ours == theirs)


def main(arguments: Sequence[str]) -> int:
    """Fit, print the figures, and write or check the coefficients."""
    if set(arguments) - {"--check"}:
        print(__doc__)
        return 2
    customers = read_customers()
    coefficients = fit(customers)
    shifted = fit_balance(
        *([c.a_month_earlier() for c in customers if c.part == part] for part in ("fit", "calibrate"))
    )
    print(report(evaluate(customers, coefficients, balance_of_a_month_earlier=shifted)))
    if "--check" not in arguments:
        COEFFICIENTS.write_text(json.dumps(coefficients, indent=1) + "\n", encoding="utf-8")
        return 0
    same = same_coefficients(coefficients, json.loads(COEFFICIENTS.read_text(encoding="utf-8")))
    print("coefficients.json is what this data gives" if same else "coefficients.json differs: run fit.py")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
