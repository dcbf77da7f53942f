"""Signed statements inside sealed values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import jose
from cloister.envelope import author_of, authored, open_authored
from cloister.errors import ConfigurationError, OpenError

KEY = jose.generate_key("EdDSA", kid="clinic")
PLACE: dict[str, Any] = {"tenant": "acme", "key": "doses", "context": {"patient": "ann"}}
GOOD = authored({"mg": 50}, signer=KEY, **PLACE)


@pytest.mark.parametrize("value", [b"\x00\xff", "text", {"mg": 50}, 17, None, True])
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    text = authored(value, signer=KEY, **PLACE)
    assert author_of(text) == "clinic"
    assert open_authored(text, jose.public_jwk(KEY), **PLACE) == value


@pytest.mark.parametrize(
    "change", [{"tenant": "globex"}, {"key": "other"}, {"context": {"patient": "bob"}}, {"context": None}]
)
def test_a_statement_for_another_place_does_not_open(change: dict[str, Any]) -> None:
    with pytest.raises(OpenError):
        open_authored(GOOD, KEY, **{**PLACE, **change})


def test_another_type_of_statement_does_not_open() -> None:
    payload = jose.verify_compact(GOOD, KEY, typ="cloister-author+jwt")
    other = jose.sign_compact(payload, KEY, typ="cloister-bundle+jwt")
    with pytest.raises(OpenError):
        open_authored(other, KEY, **PLACE)


def test_a_key_without_a_name_or_without_its_private_half_signs_nothing() -> None:
    for key in (jose.generate_key("EdDSA"), jose.public_jwk(KEY)):
        with pytest.raises(ConfigurationError):
            authored("x", signer=key, **PLACE)


@given(st.one_of(st.text(), st.integers(), st.none(), st.binary()))
def test_what_is_no_statement_has_no_author(text: Any) -> None:
    with pytest.raises(OpenError):
        author_of(text)


@given(st.data())
def test_damaged_statements_do_not_open(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(GOOD) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    mutated = GOOD[:position] + letter + GOOD[position + 1 :]
    if mutated != GOOD:
        with pytest.raises(OpenError):
            open_authored(mutated, KEY, **PLACE)
