"""The credit model: reproducible, better than its baselines, and unshaken by customers it never saw."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from dataclasses import asdict, replace
from typing import Any

import histories
import pytest
from customers import Customer, read_customers
from evaluate import Figures, evaluate, report
from fit import COEFFICIENTS, fit, fit_balance, same_coefficients
from history import (
    AmountOutOfRange,
    History,
    HistoryError,
    HistoryLength,
    Month,
    MonthsNotConsecutive,
    UnknownCurrency,
    UnknownStatus,
    check_history,
    month_after,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model import Forecast, forecast

AMOUNTS = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(-1e12, 1e12, allow_nan=False),
    st.sampled_from([0, 0.0, -0.0, 1e-300, 390, 5_000, 1_000_000]),
)
STATUSES = st.integers(-2, 9)


def months_from(start: str, rows: list[tuple[int, float, float]]) -> list[Month]:
    months, label = [], start
    for status, balance, payment in rows:
        months.append(Month(month=label, status=status, balance=balance, payment=payment))
        label = month_after(label)
    return months


@st.composite
def odd_histories(draw: st.DrawFn) -> History:
    rows = draw(st.lists(st.tuples(STATUSES, AMOUNTS, AMOUNTS.map(abs)), min_size=3, max_size=14))
    return History(currency="TWD", credit_limit=draw(AMOUNTS.map(abs)), months=months_from("2005-04", rows))


@pytest.fixture(scope="module")
def customers() -> list[Customer]:
    return read_customers()


@pytest.fixture(scope="module")
def fitted(customers: list[Customer]) -> dict[str, Any]:
    return fit(customers)


@pytest.fixture(scope="module")
def figures(customers: list[Customer], fitted: dict[str, Any]) -> Figures:
    parts = ([c.a_month_earlier() for c in customers if c.part == part] for part in ("fit", "calibrate"))
    return evaluate(customers, fitted, balance_of_a_month_earlier=fit_balance(*parts))


@pytest.fixture
def good() -> History:
    rows = [(0, 9_000.0, 1_000.0), (0, 9_500.0, 1_200.0), (0, 9_400.0, 1_100.0), (0, 9_900.0, 1_000.0)]
    return History(currency="TWD", credit_limit=50_000, months=months_from("2025-10", rows))


def with_month(history: History, at: int, **changes: Any) -> History:
    months = list(history.months)
    months[at] = replace(months[at], **changes)
    return replace(history, months=months)


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


# What fit.py shows


def test_the_committed_coefficients_are_what_the_data_gives(fitted: dict[str, Any]) -> None:
    assert same_coefficients(fitted, json.loads(COEFFICIENTS.read_text(encoding="utf-8")))


def test_a_changed_coefficient_is_noticed(fitted: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(fitted))
    changed["default"]["terms"]["payments"]["weight"] *= 1.01
    assert not same_coefficients(fitted, changed)


def test_default_probabilities_beat_the_rate_by_last_status(figures: Figures) -> None:
    assert figures.default.auc > figures.last_status.auc + 0.03
    assert figures.default.brier < figures.last_status.brier - 0.003
    assert figures.brier_gain[0] > 2 * figures.brier_gain[1]


def test_default_probabilities_are_calibrated(figures: Figures) -> None:
    for _low, _high, count, predicted, happened in figures.bands:
        noise = math.sqrt(predicted * (1 - predicted) / count)
        assert abs(predicted - happened) < 3 * noise


def test_balances_beat_the_last_balance(figures: Figures) -> None:
    assert figures.balance.mean_error < 0.92 * figures.last_value.mean_error
    assert figures.balance.median_error < 0.92 * figures.last_value.median_error
    assert figures.error_gain[0] > 2 * figures.error_gain[1]


def test_the_interval_holds_its_share_and_is_narrower_than_the_last_balance_gives(figures: Figures) -> None:
    assert 0.77 < figures.balance.coverage < 0.83
    assert figures.balance.median_width < 0.8 * figures.last_value.median_width
    assert figures.balance.score < 0.9 * figures.last_value.score


def test_weights_fitted_a_month_earlier_still_beat_the_last_balance(figures: Figures) -> None:
    assert figures.a_month_earlier.mean_error < figures.last_value.mean_error


def test_no_month_to_be_forecast_is_known_to_the_balance_model(customers: list[Customer]) -> None:
    assert {len(customer.earlier.months) for customer in customers} == {5}
    assert all(customer.target == customer.history.months[5].balance for customer in customers)


def test_the_readme_prints_these_figures(figures: Figures) -> None:
    readme = (histories.HERE / "README.md").read_text(encoding="utf-8")
    section = readme.partition("### Figures\n")[2]
    printed = section.partition("```text\n")[2].partition("\n```")[0]
    # Linear algebra libraries differ in the last digits, which may turn a rounding.
    assert numbers_in(printed) == pytest.approx(numbers_in(report(figures)), rel=2e-3, abs=2e-4)


# Customers it never saw


@settings(max_examples=300, deadline=None)
@given(odd_histories())
def test_any_history_that_passes_the_checks_gets_a_sound_forecast(history: History) -> None:
    found = forecast(history)
    assert 0 < found.probability_of_default < 1
    assert found.interval_low <= found.next_balance <= found.interval_high
    numbers = [found.next_balance, found.interval_low, found.interval_high]
    assert all(math.isfinite(number) for number in numbers)
    assert len(found.reasons) <= 4
    assert [reason.log_odds for reason in found.reasons] == sorted(
        (reason.log_odds for reason in found.reasons), reverse=True
    )
    assert len({reason.code for reason in found.reasons}) == len(found.reasons)
    json.dumps(asdict(found), allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(odd_histories(), st.data())
def test_a_month_made_late_or_later_never_lowers_the_probability(
    history: History, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(history.months) - 1))
    later = data.draw(st.integers(max(1, history.months[at].status), 9))
    worse = with_month(history, at, status=later)
    assert forecast(worse).probability_of_default >= forecast(history).probability_of_default


@settings(max_examples=200, deadline=None)
@given(odd_histories(), st.data())
def test_a_payment_left_out_never_lowers_the_probability(history: History, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(history.months) - 1))
    worse = with_month(history, at, payment=0)
    assert forecast(worse).probability_of_default >= forecast(history).probability_of_default


def test_a_new_late_month_after_a_clean_record_raises_the_probability(good: History) -> None:
    last = good.months[-1]
    late = Month(month=month_after(last.month), status=2, balance=last.balance, payment=0)
    worse = replace(good, months=[*good.months, late])
    assert forecast(worse).probability_of_default > 1.5 * forecast(good).probability_of_default


def test_months_before_the_latest_six_do_not_count(customers: list[Customer]) -> None:
    history = customers[0].history
    before = Month(month="2005-03", status=8, balance=10**6, payment=0)
    assert forecast(replace(history, months=[before, *history.months])) == forecast(history)


def test_a_balance_that_never_was_below_zero_is_not_expected_there(good: History) -> None:
    assert forecast(good).interval_low >= 0
    owed_by_bank = with_month(good, -1, balance=-9_000.0, status=-2)
    assert forecast(owed_by_bank).interval_low < 0


def test_a_balance_on_a_zero_limit_counts_as_full_use(good: History) -> None:
    codes = [reason.code for reason in forecast(replace(good, credit_limit=0)).reasons]
    assert "R04" in codes


# Reasons


def test_reasons_name_this_customers_months(good: History) -> None:
    late = with_month(with_month(good, 1, status=1), -1, status=3)
    texts = {reason.code: reason.text for reason in forecast(late).reasons}
    assert texts["R01"] == "Payment 3 months late in 2026-01"
    assert texts["R03"] == "Late payments earlier: 2025-11"


def test_the_only_late_payment_is_a_reason_of_its_own(good: History) -> None:
    reasons = forecast(with_month(good, -1, status=1)).reasons
    assert "R01" in {reason.code for reason in reasons}
    assert "R03" not in {reason.code for reason in reasons}


def test_a_customer_without_anything_adverse_gets_no_reasons(good: History) -> None:
    rich = replace(
        good, credit_limit=500_000, months=[replace(month, payment=9_000.0) for month in good.months]
    )
    assert forecast(rich).reasons == []


def test_an_idle_account_is_not_blamed_for_small_payments(good: History) -> None:
    idle = replace(good, months=[replace(month, status=-2, balance=0, payment=0) for month in good.months])
    codes = {reason.code for reason in forecast(idle).reasons}
    assert "R06" in codes
    assert "R05" not in codes


# Refusals


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"currency": "USD"}, UnknownCurrency, id="another currency"),
        pytest.param({"credit_limit": -1}, AmountOutOfRange, id="negative limit"),
        pytest.param({"credit_limit": math.nan}, AmountOutOfRange, id="limit not a number"),
        pytest.param({"credit_limit": True}, AmountOutOfRange, id="limit a boolean"),
        pytest.param({"months": []}, HistoryLength, id="no months"),
    ],
)
def test_a_history_is_refused_for(good: History, changes: dict[str, Any], error: type[HistoryError]) -> None:
    with pytest.raises(error):
        forecast(replace(good, **changes))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"month": "2025-13"}, MonthsNotConsecutive, id="thirteenth month"),
        pytest.param({"month": "2025-10"}, MonthsNotConsecutive, id="repeated month"),
        pytest.param({"month": "2025-12"}, MonthsNotConsecutive, id="skipped month"),
        pytest.param({"month": "25-11"}, MonthsNotConsecutive, id="short year"),
        pytest.param({"status": 10}, UnknownStatus, id="status too high"),
        pytest.param({"status": -3}, UnknownStatus, id="status too low"),
        pytest.param({"status": True}, UnknownStatus, id="boolean status"),
        pytest.param({"balance": math.inf}, AmountOutOfRange, id="infinite balance"),
        pytest.param({"balance": -1.1e12}, AmountOutOfRange, id="balance too large"),
        pytest.param({"balance": "9500"}, AmountOutOfRange, id="balance as text"),
        pytest.param({"payment": -1}, AmountOutOfRange, id="negative payment"),
        pytest.param({"payment": math.nan}, AmountOutOfRange, id="payment not a number"),
    ],
)
def test_a_month_is_refused_for(good: History, changes: dict[str, Any], error: type[HistoryError]) -> None:
    with pytest.raises(error):
        forecast(with_month(good, 1, **changes))


def test_two_months_are_too_few_and_more_than_ten_years_too_many(good: History) -> None:
    with pytest.raises(HistoryLength):
        check_history(replace(good, months=good.months[:2]))
    with pytest.raises(HistoryLength):
        check_history(replace(good, months=months_from("1990-01", [(0, 1.0, 1.0)] * 121)))


def test_refusals_do_not_show_values(good: History) -> None:
    with pytest.raises(AmountOutOfRange) as refusal:
        forecast(with_month(good, 1, payment=-31_337))
    assert "31337" not in str(refusal.value)


# Reading the data set


def row(**changes: str) -> dict[str, str]:
    with gzip.open(histories.DATA, "rt", newline="") as lines:
        return {**next(csv.DictReader(lines)), **changes}


@pytest.mark.parametrize("cell", ["1.0E+5", "1e5", "100000", "+100000.00", " 1.00E+05 "])
def test_scientific_notation_is_read_exactly(cell: str) -> None:
    history = histories.history_from_row(row(LIMIT_BAL=cell))
    assert history.credit_limit == 100_000
    assert '"credit_limit":100000,' in histories.to_json(history)


def test_fractions_are_kept() -> None:
    assert histories.history_from_row(row(PAY_AMT1="12.75")).months[-1].payment == 12.75


def test_months_run_from_april_to_september() -> None:
    history = histories.history_from_row(row(BILL_AMT6="111", BILL_AMT1="222", PAY_0="3", PAY_6="-2"))
    first, last = history.months[0], history.months[-1]
    assert (first.month, first.balance, first.status) == ("2005-04", 111, -2)
    assert (last.month, last.balance, last.status) == ("2005-09", 222, 3)


def test_demographics_never_enter_a_history() -> None:
    without = {k: v for k, v in row().items() if k not in {"SEX", "EDUCATION", "MARRIAGE", "AGE", "class"}}
    assert histories.history_from_row(without) == histories.history_from_row(row())


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1e400", "0x10", "1,000", "secret"])
def test_a_cell_that_is_no_number_is_refused_by_column_and_not_shown(cell: str) -> None:
    with pytest.raises(histories.RowError, match="BILL_AMT3") as refusal:
        histories.history_from_row(row(BILL_AMT3=cell))
    assert not cell or cell not in str(refusal.value)


def test_a_missing_column_is_named() -> None:
    cells = row()
    del cells["PAY_4"]
    with pytest.raises(histories.RowError, match="PAY_4 is missing"):
        histories.history_from_row(cells)


def test_every_row_of_the_data_set_is_scored(customers: list[Customer]) -> None:
    assert len(customers) == 6000
    assert sum(customer.defaulted for customer in customers) == 1380
    assert all(isinstance(forecast(customer.history), Forecast) for customer in customers)
