"""The contract of BigQuery's remote functions, as the double keeps it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery

from local_cloud.bigquery import LocalBigQuery
from local_cloud.http_server import Disconnect, HttpServer, Request, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Replies = Callable[[list[list[Any]]], Response]


class Endpoint:
    """A remote function; what it answers can be replaced."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.first_answers: list[Response | None] = []
        self.replies: Replies = lambda calls: json_response({"replies": [call[0] for call in calls]})

    def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if self.first_answers:
            answer = self.first_answers.pop(0)
            if answer is None:
                raise Disconnect
            return answer
        return self.replies(request.json()["calls"])

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request.json() for request in self.requests]


class Warehouse:
    def __init__(self, local: LocalBigQuery, client: bigquery.Client, url: str) -> None:
        self.local = local
        self.client = client
        self.url = url

    def declare(self, arguments: str = "x STRING", returns: str = "STRING", options: str = "") -> None:
        self.rows(
            f"CREATE OR REPLACE FUNCTION d.f({arguments}) RETURNS {returns}"
            f" REMOTE WITH CONNECTION `local-project.us.c` OPTIONS (endpoint = '{self.url}/f' {options})"
        )

    def rows(self, query: str) -> list[Any]:
        return [row[0] for row in self.client.query_and_wait(query)]


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def open_warehouse(endpoint: Endpoint) -> Iterator[Callable[..., Warehouse]]:
    opened: list[Any] = []

    def open_one(**options: Any) -> Warehouse:
        local = LocalBigQuery(**options)
        client = local.client()
        opened.extend([local, client])
        return Warehouse(local, client.__enter__(), server.url)

    with HttpServer(endpoint) as server:
        yield open_one
        for item in reversed(opened):
            item.__exit__(None, None, None)


@pytest.fixture
def warehouse(open_warehouse: Callable[..., Warehouse]) -> Warehouse:
    warehouse = open_warehouse()
    warehouse.client.create_dataset("d")
    return warehouse


def test_rows_are_sent_as_documented(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare(options=", user_defined_context = [('mode', 'strict'), ('key', 'ssn')]")

    assert warehouse.rows("SELECT d.f(x) FROM UNNEST(['a', NULL]) AS x") == ["a", None]

    (body,) = endpoint.bodies
    assert body["calls"] == [["a"], [None]]
    assert body["sessionUser"] == "analyst@example.com"
    assert body["userDefinedContext"] == {"mode": "strict", "key": "ssn"}
    assert body["caller"].startswith(
        "//bigquery.googleapis.com/projects/local-project/jobs/local-project:US."
    )
    assert body["requestId"]
    assert endpoint.requests[0].headers["content-type"] == "application/json"


def test_batches_hold_at_most_the_declared_rows(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare(options=", max_batching_rows = 10")

    warehouse.rows("SELECT d.f(CAST(i AS STRING)) FROM UNNEST(GENERATE_ARRAY(1, 25)) AS i")

    assert [len(body["calls"]) for body in endpoint.bodies] == [10, 10, 5]
    assert len({body["requestId"] for body in endpoint.bodies}) == 3
    assert len({body["caller"] for body in endpoint.bodies}) == 1


@pytest.mark.parametrize(
    "expression",
    ["IF(x != 'c', d.f(x), NULL)", "CASE WHEN x = 'c' THEN NULL ELSE d.f(x) END", "COALESCE(d.f(x), 'c')"],
)
def test_in_a_branch_every_row_is_a_request(
    warehouse: Warehouse, endpoint: Endpoint, expression: str
) -> None:
    warehouse.declare()
    warehouse.rows(f"SELECT {expression} FROM UNNEST(['a', 'b', 'c']) AS x")
    assert {len(body["calls"]) for body in endpoint.bodies} == {1}


@pytest.mark.parametrize(
    ("kind", "literal", "wire"),
    [
        ("INT64", "9007199254740992", 9007199254740992),
        ("INT64", "9007199254740993", "9007199254740993"),
        ("INT64", "-9007199254740993", "-9007199254740993"),
        ("FLOAT64", "1.5", 1.5),
        ("FLOAT64", "CAST('NaN' AS FLOAT64)", "NaN"),
        ("FLOAT64", "CAST('-inf' AS FLOAT64)", "-Infinity"),
        ("BOOL", "TRUE", True),
        ("BYTES", r"b'\x00\xff'", "AP8="),
        ("NUMERIC", "NUMERIC '3'", 3),
        ("NUMERIC", "NUMERIC '0.1'", 0.1),
        ("NUMERIC", "NUMERIC '12345678901234567890.123456789'", "12345678901234567890.123456789"),
        ("DATE", "DATE '2024-02-29'", "2024-02-29"),
        ("DATETIME", "DATETIME '2024-02-29 01:02:03'", "2024-02-29T01:02:03"),
        ("TIMESTAMP", "TIMESTAMP '2024-02-29 01:02:03+00'", "2024-02-29T01:02:03Z"),
        ("TIME", "TIME '01:02:03'", "01:02:03"),
        ("JSON", """JSON '{"a": [1]}'""", {"a": [1]}),
    ],
)
def test_values_cross_as_bigquery_encodes_them(
    warehouse: Warehouse, endpoint: Endpoint, kind: str, literal: str, wire: Any
) -> None:
    warehouse.declare(f"x {kind}", kind)

    same = warehouse.rows(f"SELECT TO_JSON_STRING(d.f(x)) = TO_JSON_STRING(x) FROM (SELECT {literal} AS x)")

    assert endpoint.bodies[0]["calls"] == [[wire]]
    assert same == [True]


@pytest.mark.parametrize("status", [408, 429, 500, 503, 504])
def test_a_passing_failure_is_retried_with_the_same_request(
    warehouse: Warehouse, endpoint: Endpoint, status: int
) -> None:
    warehouse.declare()
    endpoint.first_answers = [Response(status=status), Response(status=status)]

    assert warehouse.rows("SELECT d.f('a')") == ["a"]

    assert len({body["requestId"] for body in endpoint.bodies}) == 1
    assert [entry.status for entry in warehouse.local.requests] == [status, status, 200]


def test_a_lost_connection_is_retried(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare()
    endpoint.first_answers = [None]
    assert warehouse.rows("SELECT d.f('a')") == ["a"]


def test_retries_end_after_twenty(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare()
    endpoint.replies = lambda _calls: json_response({"errorMessage": "come back"}, status=503)

    with pytest.raises(exceptions.BadRequest, match="503: come back"):
        warehouse.rows("SELECT d.f('a')")

    assert len(endpoint.requests) == 21


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
def test_a_refusal_is_shown_and_not_retried(warehouse: Warehouse, endpoint: Endpoint, status: int) -> None:
    warehouse.declare()
    endpoint.replies = lambda _calls: json_response({"errorMessage": "no grant" + "!" * 2000}, status=status)

    with pytest.raises(exceptions.BadRequest, match="no grant!") as caught:
        warehouse.rows("SELECT d.f('a')")

    assert len(endpoint.requests) == 1
    assert caught.value.message.count("!") < 1024


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (json_response({"replies": ["a"]}), "1 replies for 2 calls"),
        (json_response({"replies": "ab"}), "no array of replies"),
        (json_response([]), "no array of replies"),
        (Response(body=b"garbage"), "no array of replies"),
        (json_response({"replies": [1, 2]}), "no STRING value"),
        (json_response({"replies": ["x" * (15 << 20), ""]}), "15 MB"),
    ],
    ids=["too few", "not an array", "not an object", "not JSON", "another type", "too large"],
)
def test_a_broken_answer_fails_the_query(
    warehouse: Warehouse, endpoint: Endpoint, answer: Response, message: str
) -> None:
    warehouse.declare()
    endpoint.replies = lambda _calls: answer
    with pytest.raises(exceptions.BadRequest, match=message):
        warehouse.rows("SELECT d.f(x) FROM UNNEST(['a', 'b']) AS x")


def test_a_row_over_five_megabytes_is_not_sent(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare()
    with pytest.raises(exceptions.BadRequest, match="5 MB"):
        warehouse.rows(f"SELECT d.f(REPEAT('x', {6 << 20}))")
    assert not endpoint.requests


def test_requests_can_be_repeated_on_purpose(
    open_warehouse: Callable[..., Warehouse], endpoint: Endpoint
) -> None:
    warehouse = open_warehouse(repeat_requests=True)
    warehouse.client.create_dataset("d")
    warehouse.declare()

    warehouse.rows("SELECT d.f('a')")

    first, second = endpoint.bodies
    assert first == second


def test_calls_carry_the_headers_of_the_connection(
    open_warehouse: Callable[..., Warehouse], endpoint: Endpoint
) -> None:
    warehouse = open_warehouse(
        authorize=lambda url, connection: {"Authorization": f"Bearer {connection} for {url}"}
    )
    warehouse.client.create_dataset("d")
    warehouse.declare()

    warehouse.rows("SELECT d.f('a')")

    assert endpoint.requests[0].headers["authorization"] == (
        f"Bearer local-project.us.c for {warehouse.url}/f"
    )


def test_several_arguments_keep_their_order(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare("ssn STRING, member_id INT64", "BOOL")
    endpoint.replies = lambda calls: json_response({"replies": [member == 2 for _, member in calls]})

    found = warehouse.rows("SELECT id FROM UNNEST([1, 2]) AS id WHERE `local-project.d.f`('x', id)")

    assert found == [2]


def test_many_rows_are_computed_for_a_new_table(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare()
    warehouse.rows(
        "CREATE TABLE d.t AS SELECT d.f(CAST(i AS STRING)) AS x FROM UNNEST(GENERATE_ARRAY(1, 20000)) AS i"
    )
    assert warehouse.rows("SELECT COUNT(DISTINCT x) FROM d.t") == [20_000]
    assert sum(len(body["calls"]) for body in endpoint.bodies) == 20_000


def test_routines_are_administered_by_the_client(warehouse: Warehouse) -> None:
    client = warehouse.client
    routine = bigquery.Routine(
        "local-project.d.g",
        type_="SCALAR_FUNCTION",
        return_type=bigquery.StandardSqlDataType(type_kind=bigquery.StandardSqlTypeNames.STRING),
        arguments=[
            bigquery.RoutineArgument(
                name="x",
                data_type=bigquery.StandardSqlDataType(type_kind=bigquery.StandardSqlTypeNames.STRING),
            )
        ],
        remote_function_options=bigquery.RemoteFunctionOptions(
            endpoint=f"{warehouse.url}/g", connection="local-project.us.c", max_batching_rows=5
        ),
    )
    client.create_routine(routine)
    with pytest.raises(exceptions.Conflict):
        client.create_routine(routine)

    assert warehouse.rows("SELECT d.g('a')") == ["a"]
    assert client.get_routine("d.g").remote_function_options.max_batching_rows == 5
    assert [item.routine_id for item in client.list_routines("d")] == ["g"]

    client.delete_routine("d.g")
    with pytest.raises(exceptions.NotFound):
        client.get_routine("d.g")


def test_a_function_is_replaced_and_dropped_by_sql(warehouse: Warehouse) -> None:
    warehouse.declare()
    warehouse.declare("x INT64", "INT64")
    assert warehouse.rows("SELECT d.f(1)") == [1]

    warehouse.rows("DROP FUNCTION d.f")
    with pytest.raises(exceptions.GoogleAPICallError):
        warehouse.rows("SELECT d.f(1)")


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"arguments": "x ARRAY<INT64>"}, "take no"),
        ({"arguments": "x STRUCT<a INT64>"}, "take no"),
        ({"options": f", user_defined_context = [('k', '{'v' * 8192}')]"}, "8 KB"),
        ({"options": ", endpoint = 'http://example.com/f'"}, "https"),
    ],
    ids=["array", "struct", "large context", "plain http"],
)
def test_a_declaration_bigquery_would_refuse_is_refused(
    warehouse: Warehouse, declaration: dict[str, str], message: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match=message):
        warehouse.declare(**declaration)


def test_an_exact_copy_of_what_was_sent_is_kept(warehouse: Warehouse, endpoint: Endpoint) -> None:
    warehouse.declare()
    warehouse.rows("SELECT d.f('a')")
    assert [json.loads(json.dumps(entry.body)) for entry in warehouse.local.requests] == endpoint.bodies
