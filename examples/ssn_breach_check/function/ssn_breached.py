"""The confidential function: which of these social security numbers were in a data breach?

It reads the partner's whole list and looks the numbers up inside. The partner learns that somebody asked,
and nothing else. Its range endpoint would tell more: there are only a billion numbers, so the 20 bits of
a five-digit prefix leave a thousand candidates for each. The host keeps the pages and revalidates them
by ETag, so a batch costs no request while they are fresh.

Numbers are compared as nine digits, however they are written. A value that is not nine digits is on no
list and gives False; an uploader refuses those with `normal_form` before they are sealed, where somebody
can still mend them. A page that cannot be had or understood gives an error, never False; an entry that is
no number is passed over, so that one bad line does not stop every check.
"""

from __future__ import annotations

import re
import unicodedata
from http import HTTPStatus
from typing import Annotated, Any, Final

from cloister.errors import FunctionError
from cloister.function import Limits, Origin, boolean, budget, function, origin, sealed

__all__ = ["PartnerFailed", "PartnerListUnreadable", "PartnerRefusedKey", "normal_form", "ssn_breached"]

_PATH: Final = "/v1/breached"
_MAX_PAGES: Final = 200
_ATTEMPTS: Final = 3
_NINE_DIGITS: Final = re.compile(r"[0-9]{3}([- ]?)[0-9]{2}\1[0-9]{4}")
_DASHES: Final = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")


class PartnerRefusedKey(Exception):  # noqa: N818 - callers see the class name alone, so it says what is wrong
    """The partner did not accept the API key: put a valid one into the secret `breach-api-key`."""


class PartnerFailed(Exception):  # noqa: N818 - as above
    """The partner answered with an error."""


class PartnerListUnreadable(Exception):  # noqa: N818 - as above
    """The partner's list has another shape than agreed, is too long, or changed while it was read."""


@function(
    "ssn-breached",
    batch=True,
    output=boolean(),
    egress={
        "partner": origin(
            "${BREACH_API}",
            secrets={"X-Api-Key": "breach-api-key"},
            cache_seconds=60,
            max_response_bytes=4 << 20,
        )
    },
    raises=[PartnerFailed, PartnerListUnreadable, PartnerRefusedKey],
    limits=Limits(timeout_seconds=30),
    # Callers choose nothing but the row; this only bounds how much of the table one of them goes through.
    budget=budget(per_principal=1_000_000, period="day"),
)
def ssn_breached(
    ssn: Annotated[list[str], sealed("ssn", context=["member_id"])], *, partner: Origin
) -> list[bool]:
    """Tell for each number whether it is on the partner's list."""
    if not ssn:
        return []
    breached = _breached_numbers(partner)
    return [normal_form(number) in breached for number in ssn]


def normal_form(number: str) -> str | None:
    """The nine digits of a number written as 078051120, 078-05-1120 or 078 05 1120; else None.

    Typographic dashes and wide digits count as plain ones. Nothing is guessed: eight digits may be a number
    whose leading zero a spreadsheet dropped, or a typing error.
    """
    plain = unicodedata.normalize("NFKC", number).translate(_DASHES).strip()
    return re.sub(r"[- ]", "", plain) if _NINE_DIGITS.fullmatch(plain) else None


def _breached_numbers(partner: Origin) -> frozenset[str | None]:
    first = _page(partner, 1)
    pages = first["pages"]
    if not 1 <= pages <= _MAX_PAGES:
        raise PartnerListUnreadable
    rest = [_page(partner, number) for number in range(2, pages + 1)]
    # A list that was replaced between two pages may lack numbers of both.
    if any(page["pages"] != pages for page in rest):
        raise PartnerListUnreadable
    return frozenset(normal_form(item) for page in (first, *rest) for item in page["items"]) - {None}


def _page(partner: Origin, number: int) -> dict[str, Any]:
    try:
        return _read(partner, number, {})
    except PartnerListUnreadable:
        # The host may keep an answer for a minute, a broken one too. With this header it asks again.
        return _read(partner, number, {"Cache-Control": "no-cache"})


def _read(partner: Origin, number: int, headers: dict[str, str]) -> dict[str, Any]:
    for _ in range(_ATTEMPTS):
        response = partner.get(_PATH, params={"page": str(number)}, headers=headers)
        if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            break
    if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise PartnerRefusedKey
    if response.status != HTTPStatus.OK:
        raise PartnerFailed
    try:
        page = response.json()
    except FunctionError:
        raise PartnerListUnreadable from None
    match page:
        case {"page": int(found), "pages": int(), "items": [*items]} if found == number and all(
            isinstance(item, str) for item in items
        ):
            return dict(page)
    raise PartnerListUnreadable
