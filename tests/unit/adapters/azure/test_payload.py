"""From JSON to the type a function declares: exactly, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pytest

from cloister import Token
from cloister.errors import ConfigurationError, FunctionError
from cloister_azure import Delivery
from cloister_azure.payload import decoder_for


@dataclass(frozen=True)
class Place:
    city: str


@dataclass(frozen=True)
class Card:
    account: str
    token: Token
    count: int = 0
    share: float = 0.0
    is_new: bool = False
    level: Literal["low", "high"] = "low"
    place: Place | None = None

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(self.token)


GOOD: dict[str, Any] = {"account": "a", "token": "t"}


def test_a_record_becomes_its_dataclass_with_what_is_in_it():
    card = decoder_for(Delivery[Card])(
        {**GOOD, "count": 2, "share": 1, "is_new": True, "level": "high", "place": {"city": "Basel"}}
    )
    assert card == Card("a", Token("t"), 2, 1.0, True, "high", Place("Basel"))
    assert isinstance(card.token, Token)
    assert isinstance(card.place, Place)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "text",
        {},
        {"account": "a"},
        {**GOOD, "other": 1},
        {**GOOD, "account": 1},
        {**GOOD, "token": None},
        {**GOOD, "count": True},
        {**GOOD, "count": 1.0},
        {**GOOD, "count": "1"},
        {**GOOD, "count": -1},
        {**GOOD, "share": "1"},
        {**GOOD, "is_new": 1},
        {**GOOD, "level": "medium"},
        {**GOOD, "place": {"city": "Basel", "street": "x"}},
        {**GOOD, "place": "Basel"},
    ],
    ids=str,
)
def test_a_payload_of_another_shape_is_refused_and_not_shown(payload):
    with pytest.raises(FunctionError) as refusal:
        decoder_for(Delivery[Card])(payload)
    assert str(refusal.value) == (
        "the payload is not of the type that the handler declares "
        "(function and receiver are of different versions)"
    )
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize(("kind", "good", "bad"), [(bool, True, 1), (str, "x", 1), (Token, "x", 1)])
def test_a_single_value_is_taken_as_it_is(kind, good, bad):
    assert decoder_for(Delivery[kind])(good) == good
    with pytest.raises(FunctionError):
        decoder_for(Delivery[kind])(bad)


def test_without_a_type_the_payload_stays_json():
    assert decoder_for(Delivery)({"any": ["thing"]}) == {"any": ["thing"]}


@pytest.mark.parametrize("kind", [date, bytes, set, list[Place]])
def test_a_type_that_json_does_not_give_is_refused_at_once(kind):
    with pytest.raises(ConfigurationError):
        decoder_for(Delivery[kind])
