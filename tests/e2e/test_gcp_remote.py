"""Remote functions on the real parts: every SQL type, several functions at one endpoint, many rows."""

from __future__ import annotations

import pytest
import requests

from cloister_gcp import Sealed, remote_function, remote_functions
from cloister_host.testing import embedded_host
from local_cloud.bigquery import LocalBigQuery
from local_cloud.functions_framework_app import FunctionsFrameworkApp

TYPES = """
import datetime as dt
from decimal import Decimal
from typing import Annotated, Any
from cloister.function import function, sealed, text

@function("describe", output=text(max_chars=400), batch=True)
def describe(
    secret: Annotated[list[str], sealed("notes", context=["day"])],
    n: list[int], f: list[float], b: list[bool], raw: list[bytes], d: list[Decimal],
    at: list[dt.datetime], doc: list[dict[str, Any]], note: list[str | None],
) -> list[str]:
    rows = zip(secret, n, f, b, raw, d, at, doc, note)
    return ["|".join(repr(value) for value in row) for row in rows]
"""

COUNTED = """
from typing import Annotated
from cloister.function import boolean, budget, function, sealed

@function("is-long", output=boolean(), batch=True, budget=budget(period="day", per_principal=9_429))
def is_long(secret: Annotated[list[str], sealed("notes")]) -> list[bool]:
    return [len(one) > 3 for one in secret]
"""

MAIN = """
import datetime as dt
from decimal import Decimal
from typing import Annotated
from cloister_gcp import Sealed, remote_function, remote_functions

@remote_function("describe@prod", context=["day"])
def describe(
    secret: Sealed, day: dt.date, n: int, f: float, b: bool, raw: bytes, d: Decimal,
    at: Annotated[dt.datetime, "DATETIME"], doc: dict, note: str | None,
) -> str: ...

@remote_function("is-long@prod", on_row_error="null")
def is_long(secret: Sealed) -> bool: ...

serve = remote_functions(describe, is_long)
"""


ROWS = 11_000
"""More than go to the enclave in one call; 9,428 of them open."""


class World:
    def __init__(self, tenant, owner, local, client, app):
        self.tenant = tenant
        self.owner = owner
        self.local = local
        self.client = client
        self.app = app

    def rows(self, query):
        return [tuple(row.values()) for row in self.client.query_and_wait(query)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant("acme")
        with tenant.admin as admin:
            admin.call("key.create", {"key": "notes", "purpose": "seal"})
            for name, source in ("describe", TYPES), ("is_long", COUNTED):
                folder = tmp_path_factory.mktemp(name)
                (folder / f"{name}.py").write_text(source)
                tenant.deploy(folder)
            grants = [("invoke", f"function/{name}") for name in ("describe", "is-long")]
            tenant.principal("endpoint", grants, kind="faas")
            folder = tmp_path_factory.mktemp("app")
            (folder / "main.py").write_text(MAIN)
            with (
                tenant.client("owner", [("seal", "key/notes")]) as owner,
                LocalBigQuery(repeat_requests=True) as local,
                local.client() as client,
                FunctionsFrameworkApp(
                    "serve", source=folder / "main.py", environment=tenant.environment("endpoint")
                ) as app,
            ):
                client.create_dataset("d")
                scope: dict = {}
                exec(MAIN, scope)
                for name, endpoint in scope["serve"].endpoints.items():
                    client.query_and_wait(endpoint.ddl(f"d.{name}", connection="us.c", endpoint=app.url))
                yield World(tenant, owner, local, client, app)


def test_every_type_arrives_as_the_function_reads_it(world):
    sealed = world.owner.seal("hush", key="notes", context={"day": "2024-02-29"})
    (found,) = world.rows(
        f"SELECT d.describe('{sealed}', DATE '2024-02-29', 9007199254740993, 0.5, TRUE, b'\\x00\\xff',"
        " NUMERIC '12345678901234567890.123456789', DATETIME '2024-02-29 01:02:03',"
        " JSON '{\"a\": [1]}', NULL)"
    )
    assert found[0] == (
        "'hush'|9007199254740993|0.5|True|b'\\x00\\xff'|Decimal('12345678901234567890.123456789')"
        "|datetime.datetime(2024, 2, 29, 1, 2, 3)|{'a': [1]}|None"
    )
    assert world.local.requests[-1].body["userDefinedContext"] == {"function": "describe"}


def test_another_date_does_not_open(world):
    sealed = world.owner.seal("hush", key="notes", context={"day": "2024-02-29"})
    with pytest.raises(Exception, match="1 of 1 rows failed") as refused:
        world.rows(
            f"SELECT d.describe('{sealed}', DATE '2024-02-28', 1, 0.5, TRUE, b'x', NUMERIC '1',"
            " DATETIME '2024-02-29 01:02:03', JSON '{}', 'note')"
        )
    assert "hush" not in str(refused.value)


def test_very_many_rows_are_answered_in_order_and_a_repetition_spends_no_budget(world):
    short, long = (str(world.owner.seal(text, key="notes")) for text in ("abc", "abcd"))
    calls = [[long if i % 7 == 0 else "damaged" if i % 7 == 1 else short] for i in range(ROWS)]
    body = {
        "requestId": "r-1",
        "caller": "//bigquery.googleapis.com/projects/p/jobs/p:US.job",
        "userDefinedContext": {"function": "is_long"},
        "calls": calls,
    }
    answers = [requests.post(world.app.url, json=body, timeout=120) for _ in range(2)]
    expected = {"replies": [{0: True, 1: None}.get(i % 7, False) for i in range(ROWS)]}
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json() for answer in answers] == [expected, expected]
    # The rows that opened were charged once: one answer is left, and no second one.
    assert world.rows(f"SELECT d.is_long('{long}')") == [(True,)]
    with pytest.raises(Exception, match="gives a principal 9,429 answers a day"):
        world.rows(f"SELECT d.is_long('{long}')")


def test_what_the_cloud_sees_is_ciphertext(world):
    seen = world.app.logs + str([sent.body for sent in world.local.requests])
    assert "hush" not in seen


def test_the_declaration_in_one_file_is_what_a_handler_and_its_ddl_share():
    endpoint = remote_function("is-long@prod", args={"secret": Sealed}, returns=bool)
    assert remote_functions(endpoint).endpoints == {"is_long": endpoint}
