from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from local_cloud.bigquery import LocalBigQuery
from local_cloud.functions_framework_app import FunctionsFrameworkApp

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import os
import functions_framework

@functions_framework.http
def shout(request):
    body = request.get_json()
    print("calls", len(body["calls"]))
    return {"replies": [call[0].upper() + os.environ["MARK"] for call in body["calls"]]}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "main.py"
    path.write_text(SOURCE)
    return path


def test_bigquery_calls_a_real_cloud_run_function(source: Path) -> None:
    with (
        FunctionsFrameworkApp("shout", source=source, environment={"MARK": "!"}) as app,
        LocalBigQuery() as bigquery,
        bigquery.client() as client,
    ):
        client.create_dataset("d")
        client.query_and_wait(
            "CREATE FUNCTION d.shout(x STRING) RETURNS STRING REMOTE WITH CONNECTION `local-project.us.c`"
            f" OPTIONS (endpoint = '{app.url}')"
        )
        found = list(client.query_and_wait("SELECT d.shout(x) FROM UNNEST(['a', 'b']) AS x"))

    assert [row[0] for row in found] == ["A!", "B!"]
    assert "calls 2" in app.logs


def test_a_source_that_cannot_be_loaded_is_reported(source: Path) -> None:
    source.write_text("raise RuntimeError('no such setting')")
    with pytest.raises(RuntimeError, match="no such setting"):
        FunctionsFrameworkApp("shout", source=source)


def test_the_server_is_gone_afterwards(source: Path) -> None:
    with FunctionsFrameworkApp("shout", source=source) as app:
        url = app.url
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, timeout=5)
