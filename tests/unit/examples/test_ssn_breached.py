"""The SSN check as a plain function: what it answers, what the partner sees, and when it refuses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ssn_breached as module
from hypothesis import given
from hypothesis import strategies as st
from ssn_breached import (
    PartnerFailed,
    PartnerListUnreadable,
    PartnerRefusedKey,
    normal_form,
    ssn_breached,
)

from cloister.errors import UnavailableError
from cloister.function import Response
from cloister.function.bundle import build_bundle
from cloister.function.manifest import Need
from cloister.function.testing import FakeOrigin

WOOLWORTH, PAMPHLET, ADVERT, OTHER = "078051120", "219099999", "987654320", "666981034"


class Partner(FakeOrigin):
    """Answers page by page; each page may be several answers, one after the other."""

    def __init__(self, *pages: Any) -> None:
        super().__init__({})
        self._pages = [list(page) if isinstance(page, list) else [page] for page in pages]
        self.headers: list[Mapping[str, str]] = []

    def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        self.headers.append(headers or {})
        number = int((params or {})["page"])
        answers = self._pages[min(number, len(self._pages)) - 1]
        self._answers = {f"GET {path}": answers.pop(0) if len(answers) > 1 else answers[0]}
        return super().get(path, params=params, headers=headers)


def page(number: int, pages: int, *items: Any) -> dict[str, Any]:
    return {"page": number, "pages": pages, "items": list(items)}


def test_numbers_on_any_page_are_found_and_others_are_not() -> None:
    partner = Partner(page(1, 2, WOOLWORTH), page(2, 2, ADVERT))
    assert ssn_breached([ADVERT, PAMPHLET, WOOLWORTH, ADVERT], partner=partner) == [True, False, True, True]


def test_the_partner_sees_the_same_requests_whatever_is_asked() -> None:
    seen = []
    for asked in ([WOOLWORTH], [OTHER, "not a number"], [PAMPHLET] * 1000):
        partner = Partner(page(1, 2, WOOLWORTH), page(2, 2, ADVERT))
        ssn_breached(asked, partner=partner)
        seen.append(partner.calls)
    assert seen[0] == seen[1] == seen[2]
    assert [(method, path, params, body) for method, path, params, body in seen[0]] == [
        ("GET", "/v1/breached", {"page": "1"}, b""),
        ("GET", "/v1/breached", {"page": "2"}, b""),
    ]


def test_an_empty_batch_asks_nobody() -> None:
    assert ssn_breached([], partner=FakeOrigin({})) == []


@pytest.mark.parametrize(
    "written",
    [
        "078051120",
        "078-05-1120",
        "078 05 1120",
        " 078-05-1120\n",
        "078\u201105\u20111120",
        "078\u201305\u20131120",
        "\uff10\uff17\uff18\uff10\uff15\uff11\uff11\uff12\uff10",
    ],
)
def test_a_number_is_found_however_either_side_writes_it(written: str) -> None:
    assert ssn_breached([written], partner=Partner(page(1, 1, WOOLWORTH))) == [True]
    assert ssn_breached([WOOLWORTH], partner=Partner(page(1, 1, written))) == [True]


@pytest.mark.parametrize(
    "written",
    ["", "78051120", "0780511200", "078-051120", "078 05-1120", "07805112O", "078--05-1120", "+078051120"],
)
def test_a_value_that_is_no_number_is_on_no_list(written: str) -> None:
    # Not even on a list that holds the same malformed text.
    assert ssn_breached([written, WOOLWORTH], partner=Partner(page(1, 1, written, WOOLWORTH))) == [
        False,
        True,
    ]


@given(st.text())
def test_the_normal_form_of_any_text_is_nine_digits_or_nothing(text: str) -> None:
    found = normal_form(text)
    assert found is None or (len(found) == 9 and found.isascii() and found.isdigit())
    assert found is None or normal_form(found) == found


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named(status: int) -> None:
    with pytest.raises(PartnerRefusedKey):
        ssn_breached([WOOLWORTH], partner=Partner(Response(status=status)))


@pytest.mark.parametrize("status", [204, 302, 404, 500])
def test_any_other_status_is_an_error_and_never_false(status: int) -> None:
    with pytest.raises(PartnerFailed):
        ssn_breached([OTHER], partner=Partner(page(1, 2, WOOLWORTH), Response(status=status)))


def test_a_server_error_that_passes_is_survived() -> None:
    partner = Partner([Response(status=500), Response(status=500), page(1, 1, WOOLWORTH)])
    assert ssn_breached([WOOLWORTH], partner=partner) == [True]


def test_no_answer_is_passed_on_as_such() -> None:
    with pytest.raises(UnavailableError):
        ssn_breached([WOOLWORTH], partner=FakeOrigin({}))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param([[]], id="not an object"),
        pytest.param({}, id="no members"),
        pytest.param({"page": 1, "pages": 1}, id="no items"),
        pytest.param(page(2, 2, WOOLWORTH), id="another page"),
        pytest.param(page(1, 0), id="no pages"),
        pytest.param(page(1, 100_000), id="too many pages"),
        pytest.param(page(1, 1, 78051120), id="numbers as numbers"),
        pytest.param({"page": 1, "pages": 1, "items": WOOLWORTH}, id="items as text"),
        pytest.param({"page": 1, "pages": "1", "items": []}, id="pages as text"),
        pytest.param({"debug": {"x-api-key": "k"}}, id="something else"),
    ],
)
def test_a_list_of_another_shape_is_an_error_and_never_false(broken: Any) -> None:
    with pytest.raises(PartnerListUnreadable):
        ssn_breached([OTHER], partner=Partner(broken))


def test_a_body_that_is_no_json_is_an_error() -> None:
    with pytest.raises(PartnerListUnreadable):
        ssn_breached([OTHER], partner=Partner(Response(status=200, body=b"\x00\xff{]")))


@pytest.mark.parametrize("broken", [Response(status=200, body=b"\x00\xff{]"), {}], ids=["no json", "no page"])
def test_a_page_that_is_broken_once_is_asked_for_past_the_cache(broken: Any) -> None:
    partner = Partner(page(1, 2, WOOLWORTH), [broken, page(2, 2, ADVERT)])
    assert ssn_breached([ADVERT], partner=partner) == [True]
    assert partner.headers == [{}, {}, {"Cache-Control": "no-cache"}]


def test_a_list_that_changes_length_while_it_is_read_is_an_error() -> None:
    with pytest.raises(PartnerListUnreadable):
        ssn_breached([OTHER], partner=Partner(page(1, 2, WOOLWORTH), page(2, 3, ADVERT)))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    ANY_JSON | st.fixed_dictionaries({"page": st.just(1) | ANY_JSON, "pages": ANY_JSON, "items": ANY_JSON})
)
def test_any_json_gives_an_answer_or_a_known_error(answer: Any) -> None:
    partner = Partner(Response(status=200, body=json.dumps(answer).encode()))
    with contextlib.suppress(PartnerListUnreadable):
        assert ssn_breached([OTHER], partner=partner) == [False]


def test_the_bundle_may_ask_the_partner_with_its_key_and_let_out_one_bit() -> None:
    manifest = build_bundle(Path(module.__file__).parent, {"BREACH_API": "https://breach.example"}).manifest
    assert manifest.batch
    assert manifest.output.to_manifest() == {"class": "boolean"}
    assert set(manifest.needs) == {
        Need("use-in-function", "key/ssn"),
        Need("egress", "origin/https://breach.example"),
        Need("use-secret", "secret/breach-api-key"),
    }
