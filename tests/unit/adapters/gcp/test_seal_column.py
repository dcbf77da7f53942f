"""Sealing a column before a load."""

from __future__ import annotations

import pytest

from cloister.errors import ConfigurationError
from cloister_gcp import seal_column
from cloister_gcp.columns import ROWS


class Sealer:
    """Marks what it was given, instead of sealing it."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[object], object]] = []

    def seal_many(self, values, *, key, contexts=None):
        self.batches.append((list(values), contexts))
        return [f"<{key}:{value}>" for value in values]


def rows(count):
    return ({"member_id": n, "ssn": f"n{n}"} for n in range(count))


def test_one_column_is_sealed_and_bound_and_the_others_stay():
    sealer = Sealer()
    sealed = seal_column(rows(2), "ssn", key="ssn", context=["member_id"], client=sealer)
    assert list(sealed) == [{"member_id": 0, "ssn": "<ssn:n0>"}, {"member_id": 1, "ssn": "<ssn:n1>"}]
    assert sealer.batches == [(["n0", "n1"], [{"member_id": "0"}, {"member_id": "1"}])]


def test_without_context_nothing_is_bound():
    sealer = Sealer()
    list(seal_column(rows(1), "ssn", key="ssn", client=sealer))
    assert sealer.batches[0][1] is None


def test_null_stays_null_and_is_not_sealed():
    sealer = Sealer()
    given = [{"member_id": 1, "ssn": None}, {"member_id": 2, "ssn": "n2"}]
    sealed = list(seal_column(given, "ssn", key="ssn", context=["member_id"], client=sealer))
    assert [row["ssn"] for row in sealed] == [None, "<ssn:n2>"]
    assert sealer.batches == [(["n2"], [{"member_id": "2"}])]


def test_rows_are_sealed_in_groups_as_they_are_asked_for():
    sealer = Sealer()
    sealed = seal_column(rows(2 * ROWS + 1), "ssn", key="ssn", client=sealer)
    assert not sealer.batches
    next(sealed)
    assert [len(values) for values, _ in sealer.batches] == [ROWS]
    assert sum(1 for _ in sealed) == 2 * ROWS
    assert [len(values) for values, _ in sealer.batches] == [ROWS, ROWS, 1]


def test_what_was_given_is_not_changed():
    given = [{"member_id": 1, "ssn": "n1"}]
    list(seal_column(given, "ssn", key="ssn", client=Sealer()))
    assert given == [{"member_id": 1, "ssn": "n1"}]


@pytest.mark.parametrize(
    "row",
    [{"member_id": 1}, {"ssn": "n1"}, {"member_id": None, "ssn": "n1"}, {"member_id": 1.5, "ssn": "n1"}],
    ids=["no column", "no context column", "a null context", "a context without one spelling"],
)
def test_a_row_that_cannot_be_sealed_is_refused_without_its_values(row):
    with pytest.raises(ConfigurationError) as caught:
        list(seal_column([row], "ssn", key="ssn", context=["member_id"], client=Sealer()))
    assert "n1" not in str(caught.value)
