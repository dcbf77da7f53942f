"""The BigQuery double under the real client: what the client can do with tables and queries."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from pyarrow import parquet

from local_cloud.bigquery import LocalBigQuery

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client() -> Iterator[bigquery.Client]:
    with LocalBigQuery() as local, local.client() as client:
        client.create_dataset("clinic")
        yield client


def rows(
    client: bigquery.Client, query: str, *parameters: object, page_size: int | None = None
) -> list[tuple[Any, ...]]:
    config = bigquery.QueryJobConfig(query_parameters=parameters)
    return [tuple(row) for row in client.query_and_wait(query, job_config=config, page_size=page_size)]


def test_every_type_survives_a_table(client: bigquery.Client) -> None:
    values: dict[str, Any] = {
        "s": "José",
        "b": b"\x00\xff",
        "i": 2**62,
        "f": 1.5,
        "o": True,
        "n": decimal.Decimal("12.345678901"),
        "d": dt.date(2024, 2, 29),
        "t": dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=dt.UTC),
        "dt": dt.datetime(2024, 2, 29, 1, 2, 3),  # noqa: DTZ001 - a DATETIME has no zone
        "ti": dt.time(1, 2, 3),
        "j": {"a": [1, None]},
        "a": [1, 2],
        "r": {"x": 1, "y": ["p"]},
    }
    schema = [
        bigquery.SchemaField("s", "STRING", mode="REQUIRED"),
        bigquery.SchemaField("b", "BYTES"),
        bigquery.SchemaField("i", "INTEGER"),
        bigquery.SchemaField("f", "FLOAT"),
        bigquery.SchemaField("o", "BOOLEAN"),
        bigquery.SchemaField("n", "NUMERIC"),
        bigquery.SchemaField("d", "DATE"),
        bigquery.SchemaField("t", "TIMESTAMP"),
        bigquery.SchemaField("dt", "DATETIME"),
        bigquery.SchemaField("ti", "TIME"),
        bigquery.SchemaField("j", "JSON"),
        bigquery.SchemaField("a", "INTEGER", mode="REPEATED"),
        bigquery.SchemaField(
            "r",
            "RECORD",
            fields=[
                bigquery.SchemaField("x", "INTEGER"),
                bigquery.SchemaField("y", "STRING", mode="REPEATED"),
            ],
        ),
    ]
    table = client.create_table(bigquery.Table("local-project.clinic.all", schema=schema))

    assert client.insert_rows(table, [values, {"s": "only"}]) == []

    full, empty = (
        dict(row) for row in client.query_and_wait("SELECT * FROM clinic.all ORDER BY i NULLS LAST")
    )
    assert full == values
    assert empty == dict.fromkeys(values) | {"s": "only", "a": []}
    assert client.get_table(table).schema == schema
    assert values in [dict(row) for row in client.list_rows(table)]


def test_sql_is_bigquerys(client: bigquery.Client) -> None:
    client.query_and_wait("CREATE TABLE clinic.m (id INT64, price NUMERIC, tags ARRAY<STRING>)")
    client.query_and_wait(
        "INSERT INTO `local-project.clinic.m` VALUES (1, 1.000000001, ['a', 'b']), (2, 2, [])"
    )

    assert rows(client, "SELECT m.id, t FROM clinic.m, UNNEST(tags) AS t ORDER BY t") == [(1, "a"), (1, "b")]
    assert rows(client, "SELECT SUM(price) FROM clinic.m") == [(decimal.Decimal("3.000000001"),)]
    assert rows(client, "SELECT SAFE_CAST('x' AS INT64), SESSION_USER()") == [(None, "analyst@example.com")]
    assert rows(client, "WITH m AS (SELECT 7 AS id) SELECT id FROM m") == [(7,)]


def test_parameters_are_bound(client: bigquery.Client) -> None:
    named = [
        bigquery.ScalarQueryParameter("ssn", "STRING", "078-05-1120' OR 1=1 --"),
        bigquery.ScalarQueryParameter("key", "BYTES", b"\x01"),  # type: ignore[arg-type] # its stubs forget bytes
        bigquery.ScalarQueryParameter("yes", "BOOL", value=True),
        bigquery.ArrayQueryParameter("ids", "INT64", [1, 2]),
    ]
    assert rows(client, "SELECT @ssn, @key, @yes, 2 IN UNNEST(@ids)", *named) == [
        ("078-05-1120' OR 1=1 --", b"\x01", True, True)
    ]
    positional = [bigquery.ScalarQueryParameter(None, "INT64", value) for value in (1, 2)]
    assert rows(client, "SELECT ? + ?", *positional) == [(3,)]


def test_dml_reports_the_rows_it_changed(client: bigquery.Client) -> None:
    client.query_and_wait("CREATE TABLE clinic.m AS SELECT id FROM UNNEST(GENERATE_ARRAY(1, 10)) AS id")

    deleted = client.query("DELETE FROM clinic.m WHERE id > 7")
    deleted.result()
    merged = client.query(
        "MERGE clinic.m AS m USING (SELECT 7 AS id UNION ALL SELECT 70) AS s ON m.id = s.id"
        " WHEN MATCHED THEN UPDATE SET id = -7 WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
    )
    merged.result()

    assert (deleted.statement_type, deleted.num_dml_affected_rows) == ("DELETE", 3)
    assert (merged.statement_type, merged.num_dml_affected_rows) == ("MERGE", 2)
    assert rows(client, "SELECT COUNT(*), MIN(id), MAX(id) FROM clinic.m") == [(8, -7, 70)]


def test_long_results_come_in_pages(client: bigquery.Client) -> None:
    found = rows(client, "SELECT id FROM UNNEST(GENERATE_ARRAY(1, 2500)) AS id ORDER BY id", page_size=1000)
    assert [row[0] for row in found] == list(range(1, 2501))


def test_a_default_dataset_qualifies_tables(client: bigquery.Client) -> None:
    client.query_and_wait("CREATE TABLE clinic.m AS SELECT 1 AS id")
    config = bigquery.QueryJobConfig(default_dataset="local-project.clinic")
    assert [row["id"] for row in client.query("SELECT id FROM m", job_config=config)] == [1]


@pytest.mark.parametrize(
    ("error", "query"),
    [
        (exceptions.BadRequest, "SELEC 1"),
        (exceptions.BadRequest, "SELECT id + 'x' FROM UNNEST([1]) AS id"),
        (exceptions.NotFound, "SELECT * FROM clinic.missing"),
        (exceptions.Conflict, "CREATE TABLE clinic.twice (id INT64); CREATE TABLE clinic.twice (id INT64)"),
    ],
)
def test_errors_reach_the_client_through_both_ways_to_query(
    client: bigquery.Client, error: type[Exception], query: str
) -> None:
    with pytest.raises(error):
        client.query_and_wait(query)
    with pytest.raises(exceptions.GoogleAPICallError):
        client.query(query).result()


def test_datasets_and_tables_are_administered(client: bigquery.Client) -> None:
    client.create_table(bigquery.Table("local-project.clinic.m", [bigquery.SchemaField("id", "INTEGER")]))

    with pytest.raises(exceptions.Conflict):
        client.create_dataset("clinic")
    with pytest.raises(exceptions.Conflict):
        client.create_table(bigquery.Table("local-project.clinic.m", [bigquery.SchemaField("id", "INTEGER")]))
    with pytest.raises(exceptions.BadRequest):
        client.delete_dataset("clinic")
    assert [item.table_id for item in client.list_tables("clinic")] == ["m"]
    assert [item.dataset_id for item in client.list_datasets()] == ["clinic"]

    client.delete_table("clinic.m")
    with pytest.raises(exceptions.NotFound):
        client.get_table("clinic.m")
    client.delete_dataset("clinic")
    with pytest.raises(exceptions.NotFound):
        client.get_dataset("clinic")


def test_streamed_rows_are_checked_and_kept_all_or_none(client: bigquery.Client) -> None:
    client.query_and_wait("CREATE TABLE clinic.m (id INT64 NOT NULL, b BYTES)")

    errors = client.insert_rows_json("clinic.m", [{"id": 1}, {"id": "x"}, {"id": None}, {"id": 2, "z": 1}])

    assert [entry["index"] for entry in errors] == [1, 2, 3]
    assert rows(client, "SELECT COUNT(*) FROM clinic.m") == [(0,)]


@pytest.mark.parametrize("count", [10, 60_000], ids=["multipart", "resumable"])
def test_json_is_loaded(client: bigquery.Client, count: int) -> None:
    config = bigquery.LoadJobConfig(
        schema=[bigquery.SchemaField("id", "INTEGER"), bigquery.SchemaField("ssn", "STRING")]
    )
    records = [{"id": number, "ssn": f"{number:0100}"} for number in range(count)]

    job = client.load_table_from_json(records, "clinic.m", job_config=config)
    job.result()

    assert job.output_rows == count
    assert rows(client, "SELECT COUNT(DISTINCT ssn) FROM clinic.m") == [(count,)]


def test_json_without_a_schema_is_detected(client: bigquery.Client) -> None:
    client.load_table_from_json([{"id": 1, "name": "a"}], "clinic.m").result()
    assert [(field.name, field.field_type) for field in client.get_table("clinic.m").schema] == [
        ("id", "INTEGER"),
        ("name", "STRING"),
    ]


def test_csv_and_parquet_are_loaded(client: bigquery.Client) -> None:
    schema = [bigquery.SchemaField("id", "INTEGER"), bigquery.SchemaField("name", "STRING")]
    text = bigquery.LoadJobConfig(source_format="CSV", schema=schema, skip_leading_rows=1)
    client.load_table_from_file(io.BytesIO(b"id,name\n1,a\n2,\n"), "clinic.m", job_config=text).result()
    columns = io.BytesIO()
    parquet.write_table(pa.table({"id": [3], "name": ["c\r\n--"]}), columns)
    columns.seek(0)
    client.load_table_from_file(
        columns, "clinic.m", job_config=bigquery.LoadJobConfig(source_format="PARQUET")
    ).result()

    assert rows(client, "SELECT id, name FROM clinic.m ORDER BY id") == [(1, "a"), (2, None), (3, "c\r\n--")]


def test_write_dispositions_are_kept(client: bigquery.Client) -> None:
    def load(number: int, disposition: str) -> None:
        config = bigquery.LoadJobConfig(write_disposition=disposition)
        client.load_table_from_json([{"id": number}], "clinic.m", job_config=config).result()

    load(1, "WRITE_EMPTY")
    load(2, "WRITE_APPEND")
    assert rows(client, "SELECT id FROM clinic.m ORDER BY id") == [(1,), (2,)]
    load(3, "WRITE_TRUNCATE")
    assert rows(client, "SELECT id FROM clinic.m") == [(3,)]
    with pytest.raises(exceptions.Conflict):
        load(4, "WRITE_EMPTY")


def test_a_load_that_breaks_the_schema_fails_and_loads_nothing(client: bigquery.Client) -> None:
    client.query_and_wait("CREATE TABLE clinic.m (id INT64)")
    with pytest.raises(exceptions.BadRequest, match="no INT64 value in id"):
        client.load_table_from_json([{"id": 1}, {"id": "x"}], "clinic.m").result()
    assert rows(client, "SELECT COUNT(*) FROM clinic.m") == [(0,)]


def test_what_the_double_cannot_do_is_refused_by_name(client: bigquery.Client) -> None:
    config = bigquery.QueryJobConfig(dry_run=True)
    with pytest.raises(exceptions.MethodNotImplemented, match="dry runs"):
        client.query("SELECT 1", job_config=config)


def test_a_data_frame_free_arrow_result_is_readable(client: bigquery.Client) -> None:
    table = client.query_and_wait("SELECT 1 AS id, 'a' AS name").to_arrow(create_bqstorage_client=False)
    assert table.to_pylist() == [{"id": 1, "name": "a"}]
