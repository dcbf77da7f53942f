from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from local_cloud.breach_service import BreachService, Fault, load_numbers
from local_cloud.ca import LocalCA

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "partner-key-1"
NUMBERS = [f"9876543{number}" for number in range(20, 30)]
EXAMPLE_LIST = Path(__file__).parents[3] / "examples/ssn_breach_check/data/breached_numbers.txt"


class Partner(requests.Session):
    """A client with the right key and the right authority."""

    def __init__(self, service: BreachService, ca: LocalCA) -> None:
        super().__init__()
        self.service = service
        self.trust_env = False  # REQUESTS_CA_BUNDLE would replace the authority
        self.verify = str(ca.pem_path)
        self.headers["X-Api-Key"] = KEY

    def ask(self, path: str, **headers: str) -> requests.Response:
        return self.get(self.service.url + path, headers=headers, timeout=5, allow_redirects=False)


@pytest.fixture
def partner() -> Iterator[Partner]:
    with (
        LocalCA() as ca,
        BreachService(NUMBERS, ca=ca, api_key=KEY, page_size=4) as service,
        Partner(service, ca) as session,
    ):
        yield session


def test_the_list_comes_in_pages(partner: Partner) -> None:
    pages = [partner.ask(f"/v1/breached?page={page}").json() for page in (1, 2, 3)]
    assert [number for page in pages for number in page["items"]] == NUMBERS
    assert {page["pages"] for page in pages} == {3}


@pytest.mark.parametrize("page", ["0", "4", "-1", "x", "1e1", ""])
def test_a_page_that_does_not_exist_is_not_found(partner: Partner, page: str) -> None:
    assert partner.ask(f"/v1/breached?page={page}").status_code == 404


def test_an_unchanged_page_is_not_sent_again(partner: Partner) -> None:
    etag = partner.ask("/v1/breached").headers["ETag"]

    assert partner.ask("/v1/breached", **{"If-None-Match": etag}).status_code == 304
    partner.service.publish(NUMBERS[1:])
    assert partner.ask("/v1/breached", **{"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("key", ["", "partner-key-2", KEY + "x"])
def test_without_the_key_nothing_is_answered(partner: Partner, key: str) -> None:
    answer = partner.ask("/v1/breached", **{"X-Api-Key": key})
    assert answer.status_code == 401
    assert NUMBERS[0] not in answer.text
    assert not partner.service.requests[-1].authorized


def test_a_rotated_key_replaces_the_old_one(partner: Partner) -> None:
    partner.service.rotate_key("partner-key-2")
    assert partner.ask("/v1/breached").status_code == 401
    assert partner.ask("/v1/breached", **{"X-Api-Key": "partner-key-2"}).ok


def test_a_range_holds_the_suffix_and_hides_how_many(partner: Partner) -> None:
    digest = hashlib.sha256(NUMBERS[0].encode()).hexdigest().upper()

    hit = partner.ask(f"/v1/ranges/{digest[:5]}").text
    miss = partner.ask("/v1/ranges/00000").text

    assert f"{digest[5:]}:1" in hit.split("\r\n")
    assert {line.rpartition(":")[2] for line in miss.split("\r\n")} == {"0"}
    assert len(hit) == len(miss)
    assert partner.ask("/v1/ranges/00000").text == miss


@pytest.mark.parametrize("prefix", ["0000", "000000", "0000g", ""])
def test_a_range_is_five_digits(partner: Partner, prefix: str) -> None:
    assert partner.ask(f"/v1/ranges/{prefix}").status_code == 404


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault.SERVER_ERROR, 500, "something broke"),
        (Fault.TOO_MANY_REQUESTS, 429, "slow down"),
        (Fault.REDIRECT, 302, ""),
        (Fault.REFLECT_KEY, 200, KEY),
        (Fault.SLOW, 200, NUMBERS[0]),
    ],
)
def test_a_fault_spoils_as_many_answers_as_asked(
    partner: Partner, fault: Fault, status: int, text: str
) -> None:
    partner.service.fail_next(fault, times=2)
    for _ in range(2):
        answer = partner.ask("/v1/breached")
        assert answer.status_code == status
        assert text in answer.text
    assert partner.ask("/v1/breached").json()["items"]


def test_garbage_is_no_json(partner: Partner) -> None:
    partner.service.fail_next(Fault.GARBAGE)
    with pytest.raises(requests.exceptions.JSONDecodeError):
        partner.ask("/v1/breached").json()


def test_a_reset_is_a_connection_error(partner: Partner) -> None:
    partner.service.fail_next(Fault.RESET)
    with pytest.raises(requests.exceptions.ConnectionError):
        partner.ask("/v1/breached")


def test_a_request_that_hangs_ends_with_the_service(partner: Partner) -> None:
    partner.service.fail_next(Fault.TIMEOUT)
    with pytest.raises(requests.exceptions.ReadTimeout):
        partner.get(f"{partner.service.url}/v1/breached", timeout=0.3)


def test_the_log_holds_requests_and_no_key(partner: Partner) -> None:
    partner.ask("/v1/ranges/ABCDE?x=1")
    (entry,) = partner.service.requests
    assert (entry.method, entry.target, entry.authorized, entry.status) == (
        "GET",
        "/v1/ranges/ABCDE?x=1",
        True,
        200,
    )
    assert KEY not in repr(entry)


def test_the_list_of_the_example_is_readable() -> None:
    numbers = load_numbers(EXAMPLE_LIST)
    assert len(numbers) == 200
    assert "078051120" in numbers


def test_a_line_that_is_no_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("078-05-1120\n078-05-112\n")
    with pytest.raises(ValueError, match="no social security number"):
        load_numbers(tmp_path / "list")
