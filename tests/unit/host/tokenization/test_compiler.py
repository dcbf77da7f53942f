"""What policies compile to, what they are refused for, and what their tokens look like."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError
from cloister.mask import DENIED, MASKED, PLAIN
from cloister_host.identity.caller import Caller, Subject
from cloister_host.tokenization.checksums import iban_is_valid, luhn_is_valid, luhn_sum
from cloister_host.tokenization.compiler import CompiledPolicy, compile_policy
from cloister_host.tokenization.formats import DIGITS, RunFormat, RunRules
from cloister_host.tokenization.plans import Ff1Plan, HashPlan, RedactPlan, VaultPlan
from cloister_host.tokenization.policies import PolicyDocument

ROOT = Path(__file__).parents[4]
KEY = bytes(range(32))


def compiled(**document: Any) -> CompiledPolicy:
    return compile_policy(msgspec.convert(document, PolicyDocument))


def ff1(**document: Any) -> Ff1Plan:
    plan = compiled(plan="ff1", **document).plan
    assert isinstance(plan, Ff1Plan)
    return plan


def vault(**document: Any) -> VaultPlan:
    plan = compiled(plan="vault", **document).plan
    assert isinstance(plan, VaultPlan)
    return plan


def _customer_rows() -> list[tuple[str, str, dict[str, Any]]]:
    text = (ROOT / "docs" / "tokenization.md").read_text()
    section = text.split("## A customer record")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| `(\{.*?\})` \|", section, re.MULTILINE)
    return [(name, example, json.loads(policy)) for name, example, policy in rows]


@pytest.mark.parametrize(("name", "example", "policy"), _customer_rows())
def test_every_row_of_the_documented_customer_record_compiles_and_takes_its_example(
    name: str, example: str, policy: dict[str, Any]
) -> None:
    plan = compiled(**policy).plan
    match plan:
        case Ff1Plan():
            tokens = plan.tokenize([example], KEY)
            assert tokens.values[0] not in {None, example}
            assert plan.detokenize([token or "" for token in tokens.values], KEY).values == [example]
        case VaultPlan():
            assert plan.fault(example) is None
            assert plan.draw(example) != example
        case HashPlan():
            assert plan.tokenize([example], KEY).values[0]
        case RedactPlan():
            assert plan.tokenize([example]).values == ["[REDACTED]"]


def test_the_documented_customer_record_has_a_row_for_every_plan_and_type() -> None:
    rows = _customer_rows()
    assert len(rows) >= 15
    assert {policy["plan"] for _, _, policy in rows} == {"ff1", "vault", "hash", "redact"}
    types = {policy.get("type") for _, _, policy in rows}
    assert types >= {"ssn", "pan", "pin", "phone", "email", "iban", "uuid", "date", "template"}


@pytest.mark.parametrize(
    ("policy", "arithmetic"),
    [
        ({"type": "pin", "length": 4}, "10^4 = 10,000 values"),
        ({"type": "text", "alphabet": "digits", "length": 5}, "10^5 = 100,000 values"),
        ({"type": "template", "template": "99999"}, "10^5 = 100,000 values"),
        ({"type": "date"}, "73,049 days"),
        ({"type": "ssn", "preserve": {"suffix": 4}}, "5 of 9 symbols: 10^5 = 100,000"),
        ({"type": "pan", "preserve": {"prefix": 8, "suffix": 4}}, "4 of 16 symbols: 10^4 = 10,000"),
        ({"type": "pan", "length": 15, "preserve": {"prefix": 6, "suffix": 4}}, "5 of 15 symbols: 10^5"),
        (
            {"type": "pan", "luhn": "keep", "preserve": {"prefix": 6, "suffix": 4}},
            "5 of 16 symbols (Luhn fixes one more): 10^5",
        ),
        (
            {"type": "pan", "luhn": "break", "preserve": {"prefix": 6, "suffix": 4}},
            "5 of 16 symbols (Luhn fixes one more): 10^5",
        ),
        ({"type": "pan", "min_length": 13, "preserve": {"prefix": 6, "suffix": 4}}, "3 of 13 symbols"),
        ({"type": "email", "min_length": 3}, "62^3 = 238,328"),
        ({"type": "phone", "preserve": {"prefix": 3}}, "5 of 8 symbols"),
        ({"type": "text", "alphabet": "hex", "min_length": 4}, "16^4 = 65,536"),
        ({"type": "template", "template": "AA-999"}, "26^2 x 10^3 = 676,000"),
        ({"type": "template", "template": "no symbols"}, "10^0 = 1 values"),
        ({"type": "ssn", "preserve": {"prefix": 9}}, "0 of 9 symbols: 10^0 = 1 values"),
        ({"type": "ssn", "preserve": {"positions": [0, 2, 4, 6]}}, "5 of 9 symbols"),
        ({"type": "ssn", "never_issued_tokens": True}, "888,931,098 issuable numbers"),
    ],
)
def test_ff1_is_refused_with_the_arithmetic_and_the_way_out(policy: dict[str, Any], arithmetic: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(arithmetic)) as caught:
        compiled(plan="ff1", **policy)
    assert "use plan vault" in caught.value.hint


@pytest.mark.parametrize(
    "policy",
    [
        {"type": "pin", "min_length": 6},
        {"type": "text", "alphabet": "digits", "length": 6},
        {"type": "ssn"},
        {"type": "ssn", "preserve": {"suffix": 3}},
        {"type": "pan"},
        {"type": "pan", "luhn": "keep"},
        {"type": "pan", "preserve": {"prefix": 6, "suffix": 4}},
        {"type": "pan", "luhn": "keep", "preserve": {"prefix": 5, "suffix": 4}},
        {"type": "pan", "length": 15, "preserve": {"prefix": 5, "suffix": 4}},
        {"type": "phone", "preserve": {"prefix": 2}},
        {"type": "email"},
        {"type": "iban", "preserve": {"prefix": 4}},
        {"type": "uuid"},
        {"type": "template", "template": "AA-9999"},
    ],
)
def test_ff1_is_accepted_from_a_million_on(policy: dict[str, Any]) -> None:
    assert compiled(plan="ff1", **policy).domain >= 1_000_000


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"alphabet": "digits", "length": 4}, "10^4 = 10,000 tokens"),
        ({"type": "pin", "token": {"alphabet": "digits", "length": 5}}, "10^5 = 100,000 tokens"),
        ({"type": "template", "template": "9999"}, "10,000 tokens"),
        ({"type": "ssn", "never_issued_tokens": True, "preserve": {"suffix": 4}}, "5,600 tokens for each"),
        ({"type": "ssn", "never_issued_tokens": True, "preserve": {"prefix": 3}}, "cannot be preserved"),
        ({"alphabet": "digits"}, "need a length"),
        ({"alphabet": "aa", "length": 30}, "different symbols"),
        ({"tweak": "caller"}, "no member tweak"),
        ({"type": "ssn", "luhn": "keep"}, "no member luhn"),
        ({"type": "template"}, "needs a template"),
        ({"type": "template", "template": "A\\"}, "backslash"),
        ({"type": "pan", "length": 20}, "13 to 19 symbols"),
        ({"type": "pan", "length": 16, "min_length": 13}, "length, or min_length"),
        ({"type": "pan", "min_length": 17, "max_length": 16}, "min_length is not above"),
        ({"type": "date", "first_year": 2000, "last_year": 1999}, "comes after"),
        ({"type": "text"}, "needs an alphabet"),
        ({"type": "text", "alphabet": "ab1", "separators": "a"}, "neither letters nor digits"),
        ({"type": "text", "alphabet": "ab-", "separators": "-"}, "also a symbol"),
        ({"views": [{"to": ["kind:faas"], "show": "plain"}]}, "FaaS"),
        ({"views": [{"to": ["*"], "show": "masked", "pattern": "{"}]}, "pattern"),
    ],
)
def test_a_vault_policy_is_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        compiled(plan="vault", **policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"plan": "ff1"},
        {"plan": "ff1", "alphabet": "digits", "length": 9},
        {"plan": "ff1", "type": "ssn", "deterministic": False},
        {"plan": "ff1", "type": "ssn", "ttl_seconds": 60},
        {"plan": "ff1", "type": "ssn", "token": {"alphabet": "digits", "length": 9}},
        {"plan": "ff1", "type": "text", "alphabet": "digits"},
        {"plan": "hash", "type": "ssn", "token": {"alphabet": "digits", "length": 8}},
        {"plan": "hash", "deterministic": False},
        {"plan": "hash", "views": [{"to": ["*"], "show": "plain"}]},
        {"plan": "redact", "type": "ssn"},
        {"plan": "redact", "purposes": ["test"]},
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        compiled(**policy)


@pytest.mark.parametrize("document", [{}, {"plan": "ff3"}, {"plan": "vault", "unknown": 1}, {"type": "ssn"}])
def test_there_is_no_default_plan_and_no_unknown_member(document: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, PolicyDocument)


def one(plan: Ff1Plan, value: str, tweak: str = "") -> str:
    column = plan.tokenize([value], KEY, [tweak])
    assert not column.errors
    token = column.values[0]
    assert token is not None
    assert plan.detokenize([token], KEY, [tweak]).values == [value]
    return token


def test_separators_stay_and_do_not_matter() -> None:
    plan = ff1(type="ssn")
    hyphens, plain = one(plan, "123-45-6789"), one(plan, "123456789")
    assert re.fullmatch(r"\d{3}-\d{2}-\d{4}", hyphens)
    assert hyphens.replace("-", "") == plain
    card = ff1(type="pan")
    assert one(card, "4111 1111 1111 1111").replace(" ", "") == one(card, "4111111111111111")


def test_preserved_symbols_stay_and_are_part_of_the_tweak() -> None:
    plan = ff1(type="pan", preserve={"prefix": 6, "suffix": 4})
    tokens = [
        one(plan, f"{prefix}000000{suffix}") for prefix in ("411111", "555555") for suffix in ("1111", "2222")
    ]
    assert [(token[:6], token[-4:]) for token in tokens] == [
        ("411111", "1111"),
        ("411111", "2222"),
        ("555555", "1111"),
        ("555555", "2222"),
    ]
    assert len({token[6:-4] for token in tokens}) == 4
    positions = ff1(type="ssn", preserve={"positions": [0, 8]})
    token = one(positions, "123-45-6789")
    assert (token[0], token[-1]) == ("1", "9")


def test_the_callers_tweak_changes_the_token_and_is_needed_to_undo_it() -> None:
    plan = ff1(type="ssn", tweak="caller")
    mine, yours = one(plan, "123-45-6789", "customer-1"), one(plan, "123-45-6789", "customer-2")
    assert mine != yours
    assert plan.detokenize([mine], KEY, ["customer-2"]).values != ["123-45-6789"]


@settings(max_examples=50, deadline=None)
@given(
    account=st.text("0123456789", min_size=15, max_size=15),
    luhn=st.sampled_from(["keep", "break"]),
    suffix=st.sampled_from([0, 4]),
)
def test_luhn_tokens_pass_or_fail_the_check_and_come_back(account: str, luhn: str, suffix: int) -> None:
    card = next(f"{account}{digit}" for digit in range(10) if luhn_is_valid(f"{account}{digit}"))
    for plan in (ff1(type="pan", luhn=luhn, preserve={"suffix": suffix}),):
        token = one(plan, card)
        assert luhn_is_valid(token) == (luhn == "keep")
        assert token[16 - suffix :] == card[16 - suffix :]
    drawn = vault(type="pan", luhn=luhn, preserve={"suffix": suffix}).draw(card)
    assert luhn_is_valid(drawn) == (luhn == "keep")
    assert drawn[16 - suffix :] == card[16 - suffix :]


def test_luhn_examples_are_told_apart() -> None:
    vectors = json.loads((ROOT / "tests/vectors/tokenization/luhn.json").read_bytes())
    assert all(luhn_is_valid(number) for number in vectors["valid"])
    assert not any(luhn_is_valid(number) for number in vectors["invalid"] + vectors["not_digits"])


def test_a_card_that_fails_luhn_is_refused_where_the_policy_relies_on_it() -> None:
    column = ff1(type="pan", luhn="keep").tokenize(["4111111111111112", "4111111111111111"], KEY)
    assert column.errors == {0: "format"}
    assert column.values[1] is not None
    assert vault(type="pan", luhn="keep").fault("4111111111111112") == "format"


@pytest.mark.parametrize("country", ["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947"])
def test_an_iban_keeps_its_country_and_right_check_digits(country: str) -> None:
    token = one(ff1(type="iban"), country)
    assert token[:2] == country[:2]
    assert token != country
    assert iban_is_valid(token)
    assert [char.isdigit() for char in token] == [char.isdigit() for char in country]
    assert iban_is_valid(vault(type="iban").draw(country))


def test_an_iban_with_wrong_check_digits_is_refused() -> None:
    assert ff1(type="iban").tokenize(["GB83WEST12345698765432"], KEY).errors == {0: "format"}


def test_a_uuid_stays_a_uuid_of_its_version() -> None:
    value = "6fa459ea-ee8a-4ca4-894e-db77e160355e"
    token = uuid.UUID(one(ff1(type="uuid"), value))
    assert token.version == 4
    assert token.variant == uuid.RFC_4122


def test_an_email_keeps_its_domain_and_dots() -> None:
    token = one(ff1(type="email"), "ada.lovelace@example.com")
    assert re.fullmatch(r"[A-Za-z0-9]{3}\.[A-Za-z0-9]{8}@example\.com", token)


def test_never_issued_tokens_are_neither_social_security_nor_taxpayer_numbers() -> None:
    plan = vault(type="ssn", never_issued_tokens=True)
    for _ in range(500):
        area, group, _serial = plan.draw("123-45-6789").split("-")
        assert area.startswith("9")
        assert int(group) not in {*range(50, 66), *range(70, 89), *range(90, 93), *range(94, 100)}


def test_only_issuable_numbers_are_taken_where_the_policy_says_so() -> None:
    plan = ff1(type="ssn", issuable_only=True)
    values = ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-3456", "123-45-0000", "123-45-6789"]
    assert set(plan.tokenize(values, KEY).errors) == {0, 1, 2, 3, 4}


def test_dates_are_checked_in_the_vault() -> None:
    plan = vault(type="date", first_year=1900, last_year=2000)
    faults = [
        plan.fault(value) for value in ("1999-02-28", "1999-02-29", "2001-01-01", "99-01-01", "1999-1-01")
    ]
    assert faults == [None, "format", "format", "format", "format"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.from_regex(r"\A[A-Z]{2}[0-9]{4}[a-z0-9]{2}\Z"), min_size=1, max_size=30))
def test_mixed_alphabets_are_permuted_within_their_classes(values: list[str]) -> None:
    plan = ff1(type="template", template="AA9999xx")
    tokens = plan.tokenize(values, KEY)
    assert not tokens.errors
    assert all(re.fullmatch(r"[A-Z]{2}[0-9]{4}[a-z0-9]{2}", token or "") for token in tokens.values)
    assert len(set(tokens.values)) == len(set(values))
    assert plan.detokenize([token or "" for token in tokens.values], KEY).values == values


def test_a_short_value_is_an_error_of_its_own_and_order_is_kept() -> None:
    plan = ff1(type="text", alphabet="digits", min_length=6, separators="-")
    column = plan.tokenize(["123456", "12345", "12-34-56", "abcdef", "123456789012"], KEY)
    assert column.errors == {1: "format", 3: "format"}
    assert [value is None for value in column.values] == [False, True, False, True, False]
    assert column.values[0] == (column.values[2] or "").replace("-", "")


@pytest.mark.parametrize("alphabets", [(DIGITS,), (DIGITS, "abcdef")])
def test_a_value_with_too_few_free_symbols_is_an_error_of_its_own_even_past_the_compiler(
    alphabets: tuple[str, ...],
) -> None:
    unsafe = RunFormat(RunRules(alphabets=alphabets, min_length=3, max_length=9))
    assert Ff1Plan(unsafe).tokenize(["12345", "123456"], KEY).errors == {0: "domain"}
    assert Ff1Plan(unsafe).detokenize(["12345"], KEY).errors == {0: "open"}
    assert VaultPlan(unsafe, None).fault("123") == "domain"


def test_hashes_are_keyed_and_blind_to_separators() -> None:
    plan = compiled(plan="hash", type="ssn").plan
    assert isinstance(plan, HashPlan)
    column = plan.tokenize(["123-45-6789", "123456789", "123-45-6780", "x"], KEY)
    assert column.errors == {3: "format"}
    assert column.values[0] == column.values[1] != column.values[2]
    assert plan.tokenize(["123456789"], bytes(32)).values[0] != column.values[0]
    assert all(len(value) == 22 for value in column.values[:3] if value)


def test_an_opaque_vault_takes_any_text() -> None:
    plan = vault()
    assert plan.fault("") is None
    assert re.fullmatch(r"[0-9A-Za-z]{22}", plan.draw("anything"))


def _caller(principal: str, kind: Subject) -> Caller:
    return Caller(tenant="acme", principal=principal, kind=kind, correlation_id="c")


def test_the_first_view_that_names_a_reader_holds_and_the_rest_is_denied() -> None:
    masked = {"show": "masked", "pattern": "{last:4}"}
    views = compiled(
        plan="vault",
        views=[
            {"to": ["alice"], "show": "plain"},
            {"to": ["kind:service", "bob"], **masked},
            {"to": ["alice", "kind:person"], "show": "redacted"},
        ],
    ).views
    assert views.plain_allowed(_caller("alice", "person")) == PLAIN
    assert views.plain_allowed(_caller("bob", "person")) == MASKED("{last:4}")
    assert views.plain_allowed(_caller("carol", "person")).show == "redacted"
    assert views.plain_allowed(_caller("robot", "service")) == MASKED("{last:4}")
    assert views.plain_allowed(_caller("lambda", "faas")) == DENIED


@pytest.mark.parametrize(
    "rules", [[], [{"to": ["*"], "show": "plain"}], [{"to": ["reporter"], "show": "plain"}]]
)
@pytest.mark.parametrize("mask", [None, "{last:4}"])
def test_a_faas_principal_is_never_shown_plain_values_whatever_the_policy_says(
    rules: list[dict[str, Any]], mask: str | None
) -> None:
    views = compiled(plan="vault", views=rules, mask=mask).views
    reader = _caller("reporter", "faas")
    expected = MASKED(mask) if mask else DENIED
    assert views.plain_allowed(reader) == expected
    assert views.masked_only(reader) == expected


def test_a_grant_for_masked_values_never_shows_plain_ones() -> None:
    views = compiled(plan="vault", views=[{"to": ["*"], "show": "plain"}]).views
    assert views.masked_only(_caller("alice", "person")) == DENIED


TYPES = ["text", "template", "ssn", "pan", "pin", "phone", "email", "iban", "uuid", "date", None]


@settings(max_examples=300, deadline=None)
@given(
    document=st.fixed_dictionaries(
        {"plan": st.sampled_from(["ff1", "vault", "hash", "redact"]), "type": st.sampled_from(TYPES)},
        optional={
            "alphabet": st.sampled_from(["digits", "hex"]) | st.text(min_size=1, max_size=12),
            "length": st.integers(1, 24),
            "min_length": st.integers(1, 24),
            "template": st.text("9AaXxHh\\-. ", min_size=1, max_size=12),
            "separators": st.text("- ._a1", max_size=3),
            "preserve": st.fixed_dictionaries({"prefix": st.integers(0, 8), "suffix": st.integers(0, 8)}),
            "luhn": st.sampled_from(["keep", "break"]),
        },
    ),
    values=st.lists(
        st.text("0123456789-+@. ABCabc", max_size=20) | st.text(max_size=8) | st.just("4111111111111111"),
        max_size=6,
    ),
)
def test_no_policy_that_compiles_encrypts_a_small_domain_or_loses_a_value(
    document: dict[str, Any], values: list[str]
) -> None:
    try:
        policy = compiled(**document)
    except CloisterError as error:
        assert error.code == "configuration"  # noqa: PT017 - anything else is a bug
        return
    match policy.plan:
        case Ff1Plan() as plan:
            assert policy.domain >= 1_000_000
            column = plan.tokenize(values, KEY)
            good = [(v, t) for v, t in zip(values, column.values, strict=True) if t is not None]
            assert plan.detokenize([token for _, token in good], KEY).values == [value for value, _ in good]
            assert plan.detokenize(values, KEY).errors.keys() <= set(range(len(values)))
        case VaultPlan() as plan:
            assert all(plan.draw(value) for value in values if plan.fault(value) is None)
        case HashPlan() as plan:
            plan.tokenize(values, KEY)
        case RedactPlan() as plan:
            assert plan.tokenize(values).values == ["[REDACTED]"] * len(values)


def test_luhn_sums_are_modulo_ten() -> None:
    assert luhn_sum("79927398713") == 0
    assert luhn_sum("79927398710") == 7
