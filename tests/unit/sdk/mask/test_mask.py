"""Masks over JSON documents: what each view shows, where paths lead, and that nothing slips by."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError, LimitError
from cloister.mask import DENIED, MASKED, PLAIN, REDACTED, Mask, View

CUSTOMER: dict[str, Any] = {
    "id": 7,
    "ssn": "123-45-6789",
    "cards": [{"pan": "4111111111111111", "exp": "12/27"}, {"pan": "378282246310005", "exp": "01/28"}],
    "contact": {"email": "ada.lovelace@example.com", "a/b": 1, "m~n": 2},
    "vip": True,
    "note": None,
}


@pytest.mark.parametrize(
    ("pattern", "value", "shown"),
    [
        ("***-**-{last:4}", "123-45-6789", "***-**-6789"),
        ("{first:6}******{last:4}", "4111111111111111", "411111******1111"),
        ("{first:1}***@{domain}", "ada.lovelace@example.com", "a***@example.com"),
        ("{first:1}***@{domain}", "ada@example.com", "****@example.com"),
        ("{first:1}***@{domain}", "no address here", "n***@***"),
        ("{domain}", "a@b@example.com", "example.com"),
        ("{first:2}{mask}", "secret", "se****"),
        ("{first:2}{mask}", "short", "******"),
        ("{last:4}", "1234", "****"),
        ("{last:4}", "1234567", "****"),
        ("{last:4}", "12345678", "5678"),
        ("{last:4}", "", "****"),
        ("{mask}", "a", "****"),
        ("domain mask first {{{last:1}}}", "123456", "domain mask first {6}"),
    ],
)
def test_a_pattern_shows_only_the_ends_it_names(pattern: str, value: str, shown: str) -> None:
    assert MASKED(pattern).apply(value) == shown


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "{",
        "}",
        "{last}",
        "{last:0}",
        "{last:100}",
        "{last:4}{last:4}",
        "{middle:3}",
        "x" * 201,
        "{first:-1}",
    ],
)
def test_an_unreadable_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="pattern"):
        MASKED(pattern)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ssn", {**CUSTOMER, "ssn": "[REDACTED]"}),
        ("$.ssn", {**CUSTOMER, "ssn": "[REDACTED]"}),
        ("$['ssn']", {**CUSTOMER, "ssn": "[REDACTED]"}),
        ('$["ssn"]', {**CUSTOMER, "ssn": "[REDACTED]"}),
        ("/contact/a~1b", {**CUSTOMER, "contact": {**CUSTOMER["contact"], "a/b": "[REDACTED]"}}),
        ("/contact/m~0n", {**CUSTOMER, "contact": {**CUSTOMER["contact"], "m~n": "[REDACTED]"}}),
        ("$.contact['a/b']", {**CUSTOMER, "contact": {**CUSTOMER["contact"], "a/b": "[REDACTED]"}}),
        ("/cards/1", {**CUSTOMER, "cards": [CUSTOMER["cards"][0], "[REDACTED]"]}),
        ("$.cards[1]", {**CUSTOMER, "cards": [CUSTOMER["cards"][0], "[REDACTED]"]}),
        ("$.contact", {**CUSTOMER, "contact": "[REDACTED]"}),
        ("$.cards[*]", {**CUSTOMER, "cards": ["[REDACTED]", "[REDACTED]"]}),
        ("$.contact.*", {**CUSTOMER, "contact": dict.fromkeys(CUSTOMER["contact"], "[REDACTED]")}),
        ("", "[REDACTED]"),
        ("$", "[REDACTED]"),
        ("/missing/path", CUSTOMER),
        ("/ssn/deeper", CUSTOMER),
        ("$.cards[9]", CUSTOMER),
    ],
)
def test_a_path_reaches_its_place_and_no_other(path: str, expected: object) -> None:
    before = copy.deepcopy(CUSTOMER)
    assert Mask({path: REDACTED}, default=PLAIN).apply(CUSTOMER) == expected
    assert before == CUSTOMER


@pytest.mark.parametrize(
    "path", ["$.cards[*].pan", "$..pan", "$.cards..pan", "$..cards[*].pan", "$..['pan']"]
)
def test_many_places_are_masked_by_one_path(path: str) -> None:
    shown: Any = Mask({path: MASKED("{last:4}")}, default=PLAIN).apply(CUSTOMER)
    assert [card["pan"] for card in shown["cards"]] == ["1111", "0005"]
    assert [card["exp"] for card in shown["cards"]] == ["12/27", "01/28"]


def test_descent_masks_names_at_every_depth_also_inside_each_other() -> None:
    document: Any = {"pin": {"pin": 1}, "a": [{"pin": "1234"}, [{"b": {"pin": 2}}]]}
    shown = Mask({"$..pin": REDACTED}, default=PLAIN).apply(document)
    assert shown == {"pin": "[REDACTED]", "a": [{"pin": "[REDACTED]"}, [{"b": {"pin": "[REDACTED]"}}]]}


def test_denied_members_disappear_and_denied_elements_become_null() -> None:
    shown: Any = Mask({"/ssn": DENIED, "/cards/0": DENIED}, default=PLAIN).apply(CUSTOMER)
    assert "ssn" not in shown
    assert shown["cards"] == [None, CUSTOMER["cards"][1]]
    assert Mask({"": DENIED}, default=PLAIN).apply(CUSTOMER) is None


def test_default_denied_lets_out_only_what_is_named() -> None:
    mask = Mask({"/id": PLAIN, "$.cards[*].pan": MASKED("{last:4}"), "/contact": PLAIN}, default=DENIED)
    assert mask.apply(CUSTOMER) == {
        "id": 7,
        "cards": [{"pan": "1111"}, {"pan": "0005"}],
        "contact": CUSTOMER["contact"],
    }


def test_a_stricter_path_holds_below_a_plain_one_and_nothing_shows_below_a_strict_one() -> None:
    mask = Mask(
        {"/contact": PLAIN, "$..email": DENIED, "/cards": REDACTED, "/cards/0/exp": PLAIN}, default=REDACTED
    )
    shown: Any = mask.apply(CUSTOMER)
    assert shown["contact"] == {"a/b": 1, "m~n": 2}
    assert shown["cards"] == "[REDACTED]"
    assert shown["ssn"] == "[REDACTED]"


@pytest.mark.parametrize("order", [1, -1])
def test_where_paths_meet_the_strictest_view_wins(order: int) -> None:
    views = dict([("/ssn", PLAIN), ("$.ssn", REDACTED), ("$..ssn", MASKED("{last:4}"))][::order])
    shown: Any = Mask(views, default=PLAIN).apply(CUSTOMER)
    assert shown["ssn"] == "[REDACTED]"


def test_a_pattern_masks_numbers_and_redacts_what_is_no_scalar() -> None:
    document: Any = {"n": 123456789, "f": 1234.5678, "t": True, "o": {"a": 1}, "l": [1], "z": None}
    shown = Mask({f"/{key}": MASKED("{last:2}") for key in document}, default=PLAIN).apply(document)
    assert shown == {"n": "89", "f": "78", "t": "[REDACTED]", "o": "[REDACTED]", "l": "[REDACTED]", "z": None}


@pytest.mark.parametrize(
    "path",
    [
        "ssn",
        "$ssn",
        "$.",
        "$[",
        "$[-1]",
        "$[01]",
        "$[1:2]",
        "$[?(@.a)]",
        "$.a b",
        "$..",
        "$['a",
        "/a~2",
        "/a~",
        "$['a','b']",
    ],
)
def test_an_unreadable_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError):
        Mask({path: REDACTED}, default=PLAIN)


def test_paths_are_limited_in_number_length_and_combination() -> None:
    with pytest.raises(ConfigurationError, match="256 paths"):
        Mask({f"/a{n}": REDACTED for n in range(257)}, default=PLAIN)
    with pytest.raises(ConfigurationError, match="32 steps"):
        Mask({"/a" * 33: REDACTED}, default=PLAIN)
    with pytest.raises(ConfigurationError, match="combination"):
        Mask({"$..a" + ".*" * 20: REDACTED}, default=PLAIN)


def test_text_in_gives_text_out() -> None:
    mask = Mask({"/ssn": REDACTED}, default=PLAIN)
    assert mask.apply_text('{"ssn":"123-45-6789","ssn":"987","a":[1.5,"\u00e9"]}') == (
        '{"ssn":"[REDACTED]","a":[1.5,"\\u00e9"]}'
    )


@pytest.mark.parametrize(
    "text", ["", "{", '{"ssn":"123-45-6789"', "NaN", "[1e999]", "-Infinity", b"\xff", "1 2", '{"a":1}x']
)
def test_text_that_is_not_json_is_refused_without_showing_it(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Mask({"/ssn": REDACTED}, default=PLAIN).apply_text(text)
    assert "123" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("depth", [102, 100_000])
@pytest.mark.parametrize("default", [PLAIN, DENIED])
def test_a_document_nested_too_deep_is_refused_where_a_path_may_still_match(
    depth: int, default: View
) -> None:
    with pytest.raises(LimitError, match="deeper"):
        Mask({"$..ssn": REDACTED}, default=default).apply_text("[" * depth + "]" * depth)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc") | st.text(), inner),
    max_leaves=30,
)


@given(document=_json, default=st.sampled_from([PLAIN, REDACTED, DENIED]))
def test_a_secret_planted_anywhere_never_survives(document: Any, default: View) -> None:
    secret = "unmistakable-secret"

    def plant(node: Any) -> Any:
        if isinstance(node, dict):
            return {**{key: plant(child) for key, child in node.items()}, "secret": {"x": [secret]}}
        return [plant(child) for child in node] if isinstance(node, list) else node

    planted = plant(document)
    mask = Mask({"$..secret": REDACTED, "$.a": PLAIN, "$..b": PLAIN}, default=default)
    assert secret not in mask.apply_text(json.dumps(planted))
    assert secret not in repr(mask.apply(planted))


@given(document=_json)
def test_without_views_the_default_decides(document: Any) -> None:
    assert Mask({}, default=PLAIN).apply(document) == document
    assert Mask({}, default=DENIED).apply(document) is None
    assert Mask({}, default=REDACTED).apply(document) == "[REDACTED]"


@given(path=st.text(max_size=40) | st.text("$.[]*'\"/~0ab", max_size=40), text=st.text() | st.binary())
def test_hostile_paths_and_texts_raise_only_our_errors(path: str, text: str | bytes) -> None:
    try:
        Mask({path: REDACTED}, default=DENIED).apply_text(text)
    except CloisterError as error:
        assert error.code in {"configuration", "limit"}  # noqa: PT017 - both are right


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"show": "all"},
        {"show": "masked"},
        {"show": "plain", "pattern": "x"},
        {"show": "plain", "to": 1},
        {"show": []},
    ],
)
def test_an_unreadable_view_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        View.from_mapping(document)


def test_a_view_is_read_from_a_mapping() -> None:
    assert View.from_mapping({"show": "masked", "pattern": "{last:4}"}) == MASKED("{last:4}")
    assert View.from_mapping({"show": "denied"}) == DENIED


def test_importing_masks_loads_nothing_heavy() -> None:
    code = (
        "import sys, cloister.mask; print(*{'cryptography', 'requests', 'numpy', 'cbor2'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stdout.strip()
