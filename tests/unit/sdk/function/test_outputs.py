"""Output classes let out one normal form of a declared value and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import FunctionError
from cloister.function import boolean, enum, number, record, sealed, text, token
from cloister.function.outputs import OutputClass

GRID = number(minimum=0, maximum=1, step=0.01)
RECORD = record(score=GRID, band=enum("low", "high"))


@pytest.mark.parametrize(
    ("output", "value"),
    [
        (boolean(), True),
        (GRID, 0.37),
        (number(minimum=-5, maximum=5, step=1), -3),
        (enum("low", "high"), "low"),
        (text(max_chars=3), "abc"),
        (token("pins"), "1234"),
        (sealed("forecasts"), {"any": ["thing"]}),
        (RECORD, {"score": 0.5, "band": "high"}),
    ],
)
def test_a_declared_value_is_let_out(output: OutputClass, value: Any) -> None:
    assert output.check(value) == value


@pytest.mark.parametrize(
    ("output", "value"),
    [
        (boolean(), 1),
        (boolean(), None),
        (boolean(), "true"),
        (GRID, 0.375),
        (GRID, 1.01),
        (GRID, -0.01),
        (GRID, True),
        (GRID, math.nan),
        (GRID, math.inf),
        (GRID, 0.1 + 0.2),
        (GRID, 10**400),
        (enum("low", "high"), "medium"),
        (enum("low", "high"), None),
        (text(max_chars=3), "abcd"),
        (text(max_chars=3), "\ud800"),
        (token("pins"), 1234),
        (sealed("forecasts"), None),
        (RECORD, {"score": 0.5}),
        (RECORD, {"score": 0.5, "band": "high", "leak": 1}),
        (RECORD, {"score": 0.5, "band": "leak"}),
        (RECORD, [0.5, "high"]),
    ],
)
def test_a_value_outside_its_class_stays_in(output: OutputClass, value: Any) -> None:
    with pytest.raises(FunctionError, match="output class"):
        output.check(value)


def test_the_spelling_of_a_number_carries_nothing() -> None:
    whole = number(minimum=0, maximum=10, step=1)
    assert (repr(whole.check(1.0)), repr(whole.check(1))) == ("1", "1")
    assert repr(GRID.check(-0.0)) == repr(GRID.check(0)) == "0.0"


def test_the_order_of_a_record_carries_nothing() -> None:
    assert list(RECORD.check({"band": "low", "score": 1})) == ["score", "band"]


@given(st.floats() | st.integers())
def test_a_number_is_on_the_grid_or_refused(value: float) -> None:
    try:
        released = GRID.check(value)
    except FunctionError:
        return
    assert round(released, 2) == released
    assert 0 <= released <= 1
