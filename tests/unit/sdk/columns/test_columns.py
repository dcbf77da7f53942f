"""The batch core without a host: nulls, rows with errors, outages, answers of another length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import columns
from cloister.columns import Column, Patience
from cloister.errors import ConfigurationError, DeniedError, EvidenceError, UnavailableError
from cloister.mask import MASKED


class Host:
    """Answers token operations by turning text round; keeps what it was asked."""

    def __init__(self, **answer):
        self.answer, self.asked = {"errors": {}, **answer}, []

    def call(self, op, payload, *, idempotency_key=None, purpose=None):
        self.asked.append((op, payload, idempotency_key, purpose))
        given = payload.get("values") or payload.get("tokens") or [item["value"] for item in payload["items"]]
        turned = [value[::-1] for value in given]
        return {"values": turned, "tokens": turned, **self.answer}


OPERATIONS = {
    "tokenize": lambda host, column: columns.tokenize(host, column, policy="ssn"),
    "retokenize": lambda host, column: columns.retokenize(host, column, policy="ssn"),
    "show": lambda host, column: columns.show(host, column, policy="ssn"),
    "rewrap": lambda host, column: columns.rewrap(host, column, key="ssn"),
}
each = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@each
def test_nulls_stay_where_they_are_and_are_not_sent(operation):
    host = Host()
    column = operation(host, ["ab", None, "cd"])
    assert column == Column(values=["ba", None, "dc"], errors={})
    assert len(host.asked) == 1


@each
@pytest.mark.parametrize("given", [[], [None, None]], ids=["no rows", "only nulls"])
def test_nothing_is_asked_about_nothing(operation, given):
    host = Host()
    assert operation(host, given).values == given
    assert not host.asked


@each
def test_an_error_is_that_of_its_row(operation):
    column = operation(Host(errors={"1": "open"}), [None, "ab", "cd", "ef"])
    assert column == Column(values=[None, "ba", None, "fe"], errors={2: "open"})


@each
@pytest.mark.parametrize(
    "answer",
    [
        {"values": ["x"], "tokens": ["x"]},
        {"values": ["x"] * 3, "tokens": ["x"] * 3},
        {"errors": {"2": "open"}},
        {"errors": {"x": "open"}},
        {"errors": None},
        {"values": None, "tokens": None},
    ],
    ids=["fewer", "more", "an error of no row", "an error nowhere", "no errors member", "no values"],
)
def test_an_answer_of_another_form_is_refused(operation, answer):
    with pytest.raises(EvidenceError):
        operation(Host(**answer), ["ab", "cd"])


@each
def test_an_outage_is_no_rows_error(operation):
    with pytest.raises(UnavailableError):
        operation(Host(errors={"0": "unavailable"}), ["ab", "cd"])


@pytest.mark.parametrize("bad", ["", "x" * 4097, 5, b"x"], ids=["empty", "too long", "a number", "bytes"])
def test_a_value_that_would_spoil_the_batch_is_an_error_of_its_own(bad):
    host = Host()
    column = columns.tokenize(host, ["ab", bad, None], policy="ssn")
    assert column == Column(values=["ba", None, None], errors={1: "configuration"})
    assert host.asked[0][1]["values"] == ["ab"]


def test_tweaks_go_with_their_values():
    host = Host()
    column = columns.tokenize(
        host, ["ab", None, "cd", "ef"], policy="ssn", tweaks=["1", "2", None, "x" * 257]
    )
    assert column == Column(values=["ba", None, None, None], errors={3: "configuration"})
    assert host.asked[0][1] == {"policy": "ssn", "partial": True, "values": ["ab"], "tweaks": ["1"]}


def test_what_was_said_with_a_column_reaches_the_host():
    host = Host()
    columns.show(host, ["ab"], policy="ssn", key_version=2, purpose="support")
    columns.retokenize(host, ["ab"], policy="ssn", to="pan", key_version=1, idempotency_key="k")
    columns.rewrap(host, ["ab", None, "cd"], key="ssn", contexts=[{"id": "1"}, {"id": "2"}, None])
    assert host.asked == [
        ("token.detokenize", {"policy": "ssn", "key_version": 2, "tokens": ["ab"]}, None, "support"),
        ("token.retokenize", {"policy": "ssn", "to": "pan", "key_version": 1, "tokens": ["ab"]}, "k", None),
        (
            "key.rewrap",
            {"key": "ssn", "items": [{"value": "ab", "context": {"id": "1"}}, {"value": "cd"}]},
            None,
            None,
        ),
    ]


class Sealer:
    def __init__(self):
        self.asked = []

    def seal_many(self, values, *, key, contexts=None):
        self.asked.append((values, key, contexts))
        return [f"<{value}>" for value in values]


def test_what_json_has_no_form_for_is_not_sealed():
    sealer = Sealer()
    given = ["a", None, float("nan"), object(), {"n": float("inf")}, [1, {"x": None}], b"b", True, 1.5]
    contexts = [{"row": str(row)} for row in range(len(given))]
    column = columns.seal(sealer, given, key="k", contexts=contexts)
    assert sorted(column.errors) == [2, 3, 4]
    assert set(column.errors.values()) == {"configuration"}
    assert column.values[0] == "<a>"
    assert sealer.asked[0][2] == [{"row": str(row)} for row in (0, 5, 6, 7, 8)]


class Batch:
    def __init__(self, values, errors=None):
        self.values, self.errors = values, errors or {}


class Invoker:
    def __init__(self, errors=None):
        self.errors, self.asked = errors or {}, []

    def invoke_batch(self, function, /, *, context=None, idempotency_key=None, **inputs):
        self.asked.append((function, inputs, context, idempotency_key))
        return Batch([True] * len(next(iter(inputs.values()))), self.errors)


def test_a_function_is_called_on_the_rows_that_are_whole():
    invoker = Invoker(errors={1: "open"})
    column = columns.invoke(
        invoker,
        "f@prod",
        {"ssn": ["a", "b", None, "d"]},
        rows=4,
        context={"id": ["1", None, "3", "4"]},
        idempotency_key="k",
    )
    assert column == Column(values=[True, None, None, None], errors={3: "open"})
    assert invoker.asked == [("f@prod", {"ssn": ["a", "d"]}, {"id": ["1", "4"]}, "k")]


def test_a_mask_shows_no_more_than_its_view_and_errs_on_what_is_no_text():
    column = columns.mask(["123-45-6789", None, 5], MASKED("***-**-{last:4}"))
    assert column == Column(values=["***-**-6789", None, None], errors={2: "configuration"})


@given(st.lists(st.none() | st.text(min_size=1, max_size=3)), st.data())
def test_every_row_has_its_own_answer(given, data):
    sent = [value for value in given if value is not None]
    failed = data.draw(st.sets(st.integers(0, len(sent) - 1))) if sent else set()
    column = columns.tokenize(Host(errors={str(n): "open" for n in failed}), given, policy="p")
    position = -1
    for row, value in enumerate(given):
        position += value is not None
        if value is None:
            assert column.values[row] is None
            assert row not in column.errors
        elif position in failed:
            assert column.values[row] is None
            assert column.errors[row] == "open"
        else:
            assert column.values[row] == value[::-1]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, **options):
        return Patience(sleep=self.sleep, clock=lambda: self.now, jitter=lambda: 0.0, **options)


def failing(times, error=UnavailableError):
    left = [times]

    def work():
        if left[0]:
            left[0] -= 1
            raise error("not now")
        return "done"

    return work


def test_an_outage_is_waited_out_with_growing_pauses():
    clock, told = Clock(), []
    patience = clock.patience(seconds=60, first_seconds=1, longest_seconds=4)
    assert patience.call(failing(5), told=lambda: told.append(1)) == "done"
    assert clock.slept == [1, 2, 4, 4, 4]
    assert len(told) == 5


def test_patience_ends():
    clock = Clock()
    with pytest.raises(UnavailableError):
        clock.patience(seconds=5, first_seconds=1, longest_seconds=2).call(failing(100))
    assert clock.now <= 5


def test_a_refusal_is_not_asked_again():
    clock = Clock()
    with pytest.raises(DeniedError):
        clock.patience().call(failing(1, DeniedError))
    assert not clock.slept


def test_pauses_are_shortened_at_random_by_at_most_half():
    slept = []
    patience = Patience(sleep=slept.append, clock=lambda: 0.0, jitter=lambda: 0.999)
    patience.call(failing(1))
    assert 0.25 <= slept[0] < 0.5


@pytest.mark.parametrize("options", [{"seconds": -1}, {"first_seconds": 0}, {"longest_seconds": 0.1}])
def test_patience_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigurationError):
        Patience(**options)
