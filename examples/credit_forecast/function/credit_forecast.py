"""The confidential function: a sealed history in, a sealed forecast out, nothing in the clear."""

from __future__ import annotations

from typing import Annotated

from history import (
    AmountOutOfRange,
    History,
    HistoryLength,
    MonthsNotConsecutive,
    UnknownCurrency,
    UnknownStatus,
)
from model import Forecast, forecast

from cloister.function import budget, function, sealed

__all__ = ["credit_forecast"]


@function(
    "credit-forecast",
    output=sealed("forecasts", context=["customer"]),
    budget=budget(subject="customer", per_subject=100, per_principal=100_000, period="day"),
    raises=[AmountOutOfRange, HistoryLength, MonthsNotConsecutive, UnknownCurrency, UnknownStatus],
)
def credit_forecast(
    history: Annotated[History, sealed("credit-histories", context=["customer"])],
) -> Forecast:
    """Forecast next month's balance and the probability of default, with reasons."""
    return forecast(history)
