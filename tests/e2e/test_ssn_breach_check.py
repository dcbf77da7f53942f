"""The SSN breach check on the real parts: google-cloud-bigquery, functions-framework, an enclave host."""

from __future__ import annotations

import csv
import json
import re

import pytest
import requests
from google.api_core import exceptions

from cloister.errors import DeniedError
from cloister_host.testing import embedded_host
from local_cloud.breach_service import Fault
from local_cloud.ca import LocalCA
from ssn_breach_check.fraud import Findings, find_breached, hold_accounts
from ssn_breach_check.load import RowError
from ssn_breach_check.run import DATASET, MEMBERS, PARTNERS_LIST, TABLE, breach_cloud, run

LISTED = ["078051120", "219099999", "666010001", "000123456"]
ANN, BOB, EVE, NAN = 1, 2, 3, 4
ROWS = [(ANN, "078-05-1120"), (BOB, "666-45-6789"), (EVE, "000 12 3456"), (NAN, "")]
ANSWERS = [(ANN, True), (BOB, False), (EVE, True), (NAN, None)]
ALL_PAGES = ["/v1/breached?page=1"]
NUMBERS = [*LISTED, *(ssn for _, ssn in ROWS if ssn), *(ssn.replace("-", "") for _, ssn in ROWS if ssn)]


@pytest.fixture(scope="module")
def ca():
    with LocalCA() as ca:
        yield ca


@pytest.fixture(scope="module")
def host(tmp_path_factory, ca):
    with embedded_host(
        tmp_path_factory.mktemp("host"),
        egress_trust_anchors=[ca.pem_path],
        egress_allow_private_addresses=True,
    ) as host:
        yield host


@pytest.fixture
def file_of(tmp_path):
    def write(rows):
        path = tmp_path / "members.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [("member_id", "plan", "ssn"), *((member, "gold", ssn) for member, ssn in rows)]
            )
        return path

    return write


@pytest.fixture
def cloud(host, ca, file_of):
    with breach_cloud(host, ca, numbers=LISTED) as cloud:
        cloud.load(file_of(ROWS))
        yield cloud


@pytest.fixture
def repeating(host, ca, file_of):
    with breach_cloud(host, ca, numbers=LISTED, repeat_requests=True) as cloud:
        cloud.load(file_of(ROWS))
        yield cloud


def statuses(cloud):
    return [request.status for request in cloud.bigquery.requests]


def targets(cloud):
    return [request.target for request in cloud.partner.requests]


def invocations(cloud):
    """Outcomes of `function.invoke` in the audit log, in order."""
    entries = cloud.tenant.admin.call("audit.list", {"limit": 1000})["entries"]
    return [entry["outcome"] for entry in entries if entry["act"] == "function.invoke"]


# --- the workflow ---


def test_the_demonstration_finds_and_holds_exactly_the_breached_members(host, ca):
    with MEMBERS.open(newline="") as file:
        numbers = {int(row["member_id"]): re.sub(r"\D", "", row["ssn"]) for row in csv.DictReader(file)}
    lines = []

    summary = run(host, ca, lines.append)

    listed = {line.replace("-", "") for line in PARTNERS_LIST.read_text().split()}
    breached = sorted(member for member, number in numbers.items() if number in listed)
    assert list(summary.findings.breached) == breached
    assert len(summary.findings.clear) == len(numbers) - len(breached) - list(numbers.values()).count("")
    assert summary.findings.unreadable == ()
    assert summary.held == len(breached)
    assert len(lines) == 4


def test_an_account_is_held_once(cloud):
    findings = find_breached(cloud.warehouse, dataset=DATASET)
    assert findings == Findings(breached=(ANN, EVE), clear=(BOB,), unreadable=(), without_ssn=(NAN,))
    held = [hold_accounts(cloud.warehouse, findings, dataset=DATASET) for _ in range(2)]
    assert held == [2, 0]
    accounts = cloud.query(f"SELECT member_id, status FROM {DATASET}.accounts ORDER BY member_id")
    assert accounts == [(ANN, "held"), (BOB, "open"), (EVE, "held"), (NAN, "open")]


@pytest.mark.parametrize("dataset", ["clinic`; DROP TABLE clinic.members; --", "a.b.c", ""])
def test_the_application_takes_only_a_name_as_its_dataset(dataset):
    with pytest.raises(ValueError, match="dataset"):
        find_breached(None, dataset=dataset)


def test_the_uploader_refuses_a_malformed_number_and_loads_nothing(cloud, file_of):
    before = cloud.query(f"SELECT COUNT(*) FROM {TABLE}")
    with pytest.raises(RowError, match="line 3") as refused:
        cloud.load(file_of([(7, "666-45-6789"), (8, "666-45-678")]))
    assert "666" not in str(refused.value)
    assert cloud.query(f"SELECT COUNT(*) FROM {TABLE}") == before


# --- rows ---


def test_a_null_is_answered_null_and_never_sent_on(cloud):
    assert cloud.query() == ANSWERS
    assert cloud.query(f"SELECT {DATASET}.ssn_breached(NULL, 1)") == [(None,)]
    # The row of the second query had nothing to check, so the host was not asked.
    assert invocations(cloud) == ["intent", "done"]


@pytest.mark.parametrize(
    "damage",
    ["'not a sealed value'", "CONCAT(ssn, 'A')", "REPLACE(ssn, '.', '')", "'078-05-1120'", "''"],
)
def test_a_damaged_number_leaves_the_other_rows_answered(cloud, damage):
    cloud.query(f"UPDATE {TABLE} SET ssn = {damage} WHERE member_id = {ANN}")
    assert cloud.query() == [(ANN, None), *ANSWERS[1:]]
    assert find_breached(cloud.warehouse, dataset=DATASET).unreadable == (ANN,)


def test_numbers_swapped_between_two_members_open_for_neither(cloud):
    sealed = dict(cloud.query(f"SELECT member_id, ssn FROM {TABLE}"))
    for member, other in ((ANN, BOB), (BOB, ANN)):
        cloud.query(f"UPDATE {TABLE} SET ssn = '{sealed[other]}' WHERE member_id = {member}")

    assert cloud.query() == [(ANN, None), (BOB, None), *ANSWERS[2:]]
    assert find_breached(cloud.warehouse, dataset=DATASET).unreadable == (ANN, BOB)
    # Asked under the member it was sealed for, the same ciphertext opens.
    assert cloud.query(f"SELECT {DATASET}.ssn_breached('{sealed[ANN]}', {ANN})") == [(True,)]


def test_member_ids_beyond_what_json_numbers_hold_bind_exactly(cloud, file_of):
    big = 2**53 + 1
    cloud.load(file_of([(big, "219-09-9999")]))
    assert (big, True) in cloud.query()
    (sealed,) = cloud.query(f"SELECT ssn FROM {TABLE} WHERE member_id = {big}")
    assert cloud.query(f"SELECT {DATASET}.ssn_breached('{sealed[0]}', {big - 1})") == [(None,)]


# --- the partner ---


def test_ten_thousand_rows_ask_the_partner_for_its_list_once_and_for_no_number(cloud, file_of):
    cloud.load(file_of([(n, f"000-{n // 10_000:02}-{n % 10_000:04}") for n in range(10_000, 20_000)]))

    answers = cloud.query()

    assert len(answers) == 10_004
    assert len(cloud.bigquery.requests) > 1
    assert targets(cloud) == ALL_PAGES
    assert cloud.query() == answers
    assert targets(cloud) == ALL_PAGES
    assert not any(number in str(request) for request in cloud.partner.requests for number in NUMBERS)


@pytest.mark.parametrize("fault", [Fault.TOO_MANY_REQUESTS, Fault.RESET])
def test_a_short_outage_is_bridged_inside(cloud, fault):
    cloud.partner.fail_next(fault, times=2)
    assert cloud.query() == ANSWERS
    assert statuses(cloud) == [200]


def test_an_outage_is_told_as_503_and_bigquery_tries_until_it_is_over(cloud):
    # Five failures in a row open the host's circuit for ten seconds, longer than one request waits.
    cloud.partner.fail_next(Fault.RESET, times=5)
    assert cloud.query() == ANSWERS
    assert statuses(cloud)[-1] == 200
    assert set(statuses(cloud)[:-1]) == {503}


def test_a_key_that_the_partner_refuses_fails_the_query_at_once(cloud):
    cloud.partner.rotate_key("another")
    with pytest.raises(exceptions.BadRequest, match="PartnerRefusedKey"):
        cloud.query()
    assert statuses(cloud) == [400]


def test_a_new_key_is_used_from_the_next_query_on(cloud):
    cloud.partner.rotate_key("another")
    cloud.tenant.admin.call("secret.put", {"secret": "breach-api-key", "value": "another"})
    assert cloud.query() == ANSWERS


def test_a_partner_that_answers_errors_fails_the_query_and_says_false_for_nobody(cloud):
    cloud.partner.fail_next(Fault.SERVER_ERROR, times=10)
    with pytest.raises(exceptions.BadRequest, match="PartnerFailed"):
        cloud.query()


def test_one_unreadable_answer_is_asked_for_again(cloud):
    cloud.partner.fail_next(Fault.GARBAGE)
    assert cloud.query() == ANSWERS


def test_a_partner_that_talks_garbage_fails_the_query_and_says_false_for_nobody(cloud):
    cloud.partner.fail_next(Fault.GARBAGE, times=2)
    with pytest.raises(exceptions.BadRequest, match="PartnerListUnreadable"):
        cloud.query()


def test_a_partner_that_echoes_its_key_shows_it_to_nobody(cloud):
    cloud.partner.fail_next(Fault.REFLECT_KEY)
    with pytest.raises(exceptions.BadRequest) as refused:
        cloud.query()
    assert "x-api-key" not in str(refused.value)


# --- repetition ---


def test_a_repeated_request_gets_the_same_answer_and_has_one_effect(repeating):
    assert repeating.query() == ANSWERS
    first, second = repeating.bigquery.requests
    assert first.body == second.body
    assert invocations(repeating) == ["intent", "done"]


def test_a_request_id_used_for_other_rows_is_refused(cloud):
    cloud.query()
    body = json.loads(json.dumps(cloud.bigquery.requests[0].body))
    body["calls"].reverse()
    answer = requests.post(cloud.endpoint.url, json=body, timeout=30)
    assert answer.status_code == 400
    assert invocations(cloud) == ["intent", "done", "refused"]


# --- who may do what ---


def test_the_endpoint_may_invoke_and_nothing_else(cloud):
    client = cloud.tenant.host.client(cloud.tenant.name, cloud.tenant.key_file("ssn-endpoint"))
    (sealed,) = cloud.query(f"SELECT ssn FROM {TABLE} WHERE member_id = {ANN}")
    with client:
        for attempt in (
            lambda: client.open(sealed[0], context={"member_id": str(ANN)}),
            lambda: client.open_column([sealed[0]], contexts=[{"member_id": str(ANN)}]),
            lambda: client.seal("078051120", key="ssn"),
            lambda: client.call("secret.list", {}),
        ):
            with pytest.raises(DeniedError):
                attempt()


def test_the_endpoint_without_its_grant_fails_the_query_once(cloud):
    grant = {"principal": "ssn-endpoint", "action": "invoke", "resource": "function/ssn-breached"}
    cloud.tenant.admin.call("grant.delete", grant)
    with pytest.raises(exceptions.BadRequest, match="denied: ssn-endpoint has no grant"):
        cloud.query()
    assert statuses(cloud) == [400]


def test_no_number_is_in_anything_that_the_cloud_sees(repeating):
    repeating.query(f"UPDATE {TABLE} SET ssn = 'damaged' WHERE member_id = {BOB}")
    repeating.partner.fail_next(Fault.GARBAGE, times=2)
    with pytest.raises(exceptions.BadRequest) as failed:
        repeating.query()
    repeating.partner.publish([*LISTED, "666010002"])
    seen = [
        str(failed.value),
        repeating.endpoint.logs,
        str([request.body for request in repeating.bigquery.requests]),
        str(repeating.query(f"SELECT * FROM {TABLE}")),
        str(repeating.partner.requests),
    ]
    assert [number for number in NUMBERS if any(number in text for text in seen)] == []
