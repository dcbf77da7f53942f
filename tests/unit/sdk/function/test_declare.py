"""What the decorator accepts, what it derives, and how it teaches."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
import pytest

from cloister.errors import ConfigurationError
from cloister.function import (
    Limits,
    Manifest,
    Origin,
    boolean,
    deliver,
    enum,
    function,
    number,
    origin,
    record,
    sealed,
    text,
    token,
)
from cloister.function.declare import declaration_of
from cloister.function.testing import FakeOrigin

SETTINGS = {"BREACH_API": "https://Breach.Example:443", "CARD_APP": "https://cards.example:8443/"}


@dataclasses.dataclass
class History:
    months: list[int]
    opened: dt.date
    note: str = ""


class Forecast(msgspec.Struct):
    probability: float
    reasons: list[Literal["late", "high"]]
    comment: str | None = None


@dataclasses.dataclass
class PinTransfer:
    account: str
    token: str


@function("credit-forecast", output=sealed("forecasts", context=["customer"]))
def credit_forecast(
    history: Annotated[History, sealed("credit-histories", context=["customer"])],
) -> Forecast:
    return Forecast(probability=len(history.months) / 10, reasons=[])


@function(
    "ssn-breached",
    batch=True,
    output=boolean(),
    egress={"partner": origin("${BREACH_API}", secrets={"X-Api-Key": "breach-api-key"}, cache_seconds=60)},
    limits=Limits(timeout_seconds=20),
)
def ssn_breached(
    ssn: Annotated[list[str], sealed("ssn", context=["member_id"])], *, partner: Origin
) -> list[bool]:
    listed = set(partner.get("/range").json())
    return [value in listed for value in ssn]


@function(
    "pin-transfer",
    output=record(account=text(max_chars=32), token=token("pins")),
    deliver=deliver("${CARD_APP}", path="/api/pins"),
)
def pin_transfer(pin: Annotated[str, sealed("pins", context=["account"])], account: str) -> PinTransfer:
    return PinTransfer(account=account, token=pin)


def manifest_of(implementation: Any, **settings: str) -> Manifest:
    declared = declaration_of(implementation)
    assert declared is not None
    return declared.manifest(implementation, {**SETTINGS, **settings})


def test_a_decorated_function_is_still_called_like_any_function() -> None:
    assert credit_forecast(History(months=[1, 2], opened=dt.date(2020, 1, 1))).probability == 0.2
    partner = FakeOrigin({"GET /range": ["078-05-1120"]})
    assert ssn_breached(["078-05-1120", "219-09-9999"], partner=partner) == [True, False]
    assert partner.calls == [("GET", "/range", {}, b"")]


def test_the_manifest_says_what_the_declaration_says() -> None:
    described = manifest_of(ssn_breached).to_json()
    assert described["name"] == "ssn-breached"
    assert described["batch"] is True
    assert described["inputs"] == [
        {
            "name": "ssn",
            "type": {"type": "array", "items": {"type": "string"}},
            "required": True,
            "sealed": {"class": "sealed", "key": "ssn", "context": ["member_id"]},
        }
    ]
    assert described["output"] == {"class": "boolean"}
    assert described["egress"]["partner"]["origin"] == "https://breach.example"
    assert described["limits"] == {"timeout_seconds": 20, "memory_mib": 256, "pad_milliseconds": 0}
    assert described["settings"] == {"BREACH_API": SETTINGS["BREACH_API"]}


def test_types_of_dataclasses_and_structs_are_described() -> None:
    given = manifest_of(credit_forecast).inputs[0].type
    assert given["properties"]["opened"] == {"type": "string", "format": "date"}
    assert given["required"] == ["months", "opened"]


@pytest.mark.parametrize(
    ("implementation", "needs"),
    [
        (credit_forecast, {("use-in-function", "key/credit-histories"), ("seal", "key/forecasts")}),
        (
            ssn_breached,
            {
                ("use-in-function", "key/ssn"),
                ("egress", "origin/https://breach.example"),
                ("use-secret", "secret/breach-api-key"),
            },
        ),
        (
            pin_transfer,
            {
                ("use-in-function", "key/pins"),
                ("tokenize", "policy/pins"),
                ("deliver", "origin/https://cards.example:8443"),
            },
        ),
    ],
)
def test_a_manifest_lists_every_grant_its_digest_needs(
    implementation: Any, needs: set[tuple[str, str]]
) -> None:
    assert set(manifest_of(implementation).needs) == needs


@pytest.mark.parametrize("implementation", [credit_forecast, ssn_breached, pin_transfer])
def test_a_manifest_survives_its_own_bytes(implementation: Any) -> None:
    manifest = manifest_of(implementation)
    assert Manifest.parse(manifest.canonical()).canonical() == manifest.canonical()


def test_a_missing_setting_is_named() -> None:
    declared = declaration_of(pin_transfer)
    assert declared is not None
    with pytest.raises(ConfigurationError, match=r"CARD_APP .*--set CARD_APP"):
        declared.manifest(pin_transfer, {})


def refuse(implementation: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        manifest_of(implementation)


def test_an_input_without_type_is_refused() -> None:
    @function("f", output=boolean())
    def f(value) -> bool:  # type: ignore[no-untyped-def]
        return bool(value)

    refuse(f, "parameter value has no type")


def test_a_result_that_is_not_of_its_output_class_is_refused() -> None:
    @function("f", output=boolean())
    def f(value: int) -> int:
        return value

    refuse(f, "return type of f")


def test_a_result_without_type_is_refused() -> None:
    @function("f", output=boolean())
    def f(value: int):  # type: ignore[no-untyped-def]
        return value > 1

    refuse(f, "no return type")


def test_a_record_whose_type_has_another_field_is_refused() -> None:
    @function("f", output=record(account=text(max_chars=3)))
    def f(account: str) -> PinTransfer:
        return PinTransfer(account=account, token="")

    refuse(f, "output class record")


def test_an_origin_that_is_not_a_parameter_is_refused() -> None:
    @function("f", output=boolean(), egress={"partner": origin("https://a.example")})
    def f(value: int) -> bool:
        return value > 1

    refuse(f, "'partner' is not both")


def test_a_parameter_that_is_not_an_origin_is_refused() -> None:
    @function("f", output=boolean())
    def f(value: int, *, partner: Origin) -> bool:
        return value > 1

    refuse(f, "'partner' is not both")


def test_a_batch_input_that_is_not_a_column_is_refused() -> None:
    @function("f", output=boolean(), batch=True)
    def f(value: int) -> list[bool]:
        return [value > 1]

    refuse(f, "not a column")


def test_a_batch_result_that_is_not_a_column_is_refused() -> None:
    @function("f", output=boolean(), batch=True)
    def f(value: list[int]) -> bool:
        return value == [1]

    refuse(f, "does not return a column")


def test_an_output_context_that_no_input_carries_is_refused() -> None:
    @function("f", output=sealed("out", context=["customer"]))
    def f(value: int) -> int:
        return value

    refuse(f, "'customer', which no input carries")


def test_a_context_parameter_that_is_not_text_is_refused() -> None:
    @function("f", output=sealed("out", context=["customer"]))
    def f(customer: int) -> int:
        return customer

    refuse(f, "customer is also a context")


def test_two_keys_on_one_input_are_refused() -> None:
    @function("f", output=boolean())
    def f(value: Annotated[int, sealed("a"), sealed("b")]) -> bool:
        return value > 1

    refuse(f, "two keys or a default")


def test_a_type_without_json_form_is_refused() -> None:
    @function("f", output=boolean())
    def f(value: set[int]) -> bool:
        return bool(value)

    refuse(f, "type set has no JSON form")


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "https://a.example/path",
        "https://user@a.example",
        "https://a.example?x=1",
        "https://a.example:0",
        "https://a.example:99999",
        "https://[::1",
        "https://a_b.example",
        "https://",
        "ftp://a.example",
        "https://a.example\\@b.example",
        "https://a.example\n",
    ],
)
def test_an_origin_that_is_not_plain_https_is_refused(url: str) -> None:
    @function("f", output=boolean(), egress={"partner": origin(url)})
    def f(value: int, *, partner: Origin) -> bool:
        return value > 1

    refuse(f, "origin of origin")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: function("Bad_Name", output=boolean()),
        lambda: function("f", output=bool),  # type: ignore[arg-type]
        lambda: function("f", output=boolean(), egress={"a": "https://a.example"}),  # type: ignore[dict-item]
        lambda: function("f", output=boolean(), deliver="https://a.example"),  # type: ignore[arg-type]
        lambda: sealed("ssn", context=[]),
        lambda: sealed("ssn", context="member"),  # type: ignore[arg-type]
        lambda: sealed("ssn", context=["a", "a"]),
        lambda: sealed("SSN"),
        lambda: number(minimum=1, maximum=0, step=1),
        lambda: number(minimum=0, maximum=1, step=0),
        lambda: number(minimum=0, maximum=float("inf"), step=1),
        lambda: enum("only"),
        lambda: text(max_chars=0),
        lambda: token(""),
        record,
        lambda: record(a=record(b=boolean())),  # type: ignore[arg-type]
        lambda: origin("https://a.example", secrets={"Host": "a"}),
        lambda: origin("https://a.example", secrets={"X\r\nY": "a"}),
        lambda: origin("https://a.example", secrets={"X-A": "a", "x-a": "b"}),
        lambda: origin("https://a.example", cache_seconds=-1),
        lambda: origin("https://a.example", spki_sha256=["AB"]),
        lambda: deliver("https://a.example", path="api"),
        lambda: deliver("https://a.example", path="//evil.example"),
        lambda: deliver("https://a.example", path="/a?b"),
        lambda: Limits(timeout_seconds=0),
        lambda: Limits(memory_mib=10**9),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_at_once(declare: Any) -> None:
    with pytest.raises(ConfigurationError):
        declare()


def test_a_class_or_coroutine_is_not_a_function() -> None:
    with pytest.raises(ConfigurationError, match="not a plain function"):

        @function("f", output=boolean())
        async def f(value: int) -> bool:
            return value > 1
