"""One function app, under Microsoft's runtime and through the objects of azure-functions."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from local_cloud import azure_functions
from local_cloud.azure_functions import AzureFunctions, Fault
from local_cloud.ca import LocalCA
from support import require

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = """
import asyncio
import json
import logging
import os
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
RUNS = Path(os.environ["RUNS"])

@app.route(route="pins/{account}", methods=["POST"])
def pins(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    with RUNS.open("a") as runs:
        runs.write("x")
    logging.info("a pin for %s", req.route_params["account"])
    answer = {
        "account": req.route_params["account"],
        "body": req.get_json(),
        "header": req.headers.get("X-Case"),
        "query": req.params.get("q"),
        "url": req.url,
        "function": context.function_name,
        "process": os.getpid(),
    }
    return func.HttpResponse(json.dumps(answer), mimetype="application/json", status_code=201,
                             headers={"X-Out": "1"})

@app.route(route="guarded", auth_level=func.AuthLevel.FUNCTION)
async def guarded(req: func.HttpRequest) -> func.HttpResponse:
    await asyncio.sleep(0)
    return func.HttpResponse(b"\\x00\\xff", mimetype="application/octet-stream")

@app.route(route="leak")
def leak(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("the pin is " + req.get_body().decode())

@app.route(route="exit")
def leave(req: func.HttpRequest) -> func.HttpResponse:
    os._exit(1)

@app.queue_trigger(arg_name="msg", queue_name="in", connection="Q")
def queued(msg: func.QueueMessage) -> None:
    pass
"""


class Caller(requests.Session):
    def __init__(self, app: AzureFunctions, ca: LocalCA, runs: Path) -> None:
        super().__init__()
        self.app = app
        self.trust_env = False  # REQUESTS_CA_BUNDLE would replace the authority
        self.verify = str(ca.pem_path)
        self._runs = runs

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.request(method, self.app.url + path, timeout=30, **options)

    def pin(self) -> requests.Response:
        return self.ask("POST", "/api/pins/7", json={})

    @property
    def runs(self) -> int:
        return len(self._runs.read_text()) if self._runs.exists() else 0


@pytest.fixture(params=["runtime", "objects"])
def caller(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Caller]:
    python = require.azure_runtime() if request.param == "runtime" else Path(sys.executable)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/function_app.py").write_text(APP)
    runs = tmp_path / "runs"
    with (
        LocalCA() as ca,
        AzureFunctions(tmp_path / "app", ca=ca, environment={"RUNS": str(runs)}, python=python) as app,
        Caller(app, ca, runs) as session,
    ):
        assert app.runtime.startswith(
            "azure-functions" + {"runtime": "-runtime", "objects": " obj"}[request.param]
        )
        yield session


def test_a_request_reaches_the_function_whole(caller: Caller) -> None:
    answer = caller.ask("POST", "/api/pins/a%20b?q=1", json={"x": [1]}, headers={"X-Case": "Mixed"})

    assert answer.status_code == 201
    assert answer.headers["X-Out"] == "1"
    assert answer.headers["Content-Type"].startswith("application/json")
    found = answer.json()
    assert (found["account"], found["body"], found["header"], found["query"], found["function"]) == (
        "a b",
        {"x": [1]},
        "Mixed",
        "1",
        "pins",
    )
    assert found["url"] == f"{caller.app.url}/api/pins/a%20b?q=1"
    assert "a pin for a b" in caller.app.logs


def test_an_async_function_behind_a_key_answers_bytes(caller: Caller) -> None:
    assert caller.ask("GET", "/api/guarded").status_code == 401
    assert caller.ask("GET", "/api/guarded", headers={"x-functions-key": "x"}).status_code == 401
    answer = caller.ask("GET", "/api/guarded", headers={"x-functions-key": caller.app.function_key})
    assert answer.content == b"\x00\xff"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/pins/7", 405),
        ("POST", "/api/pins", 404),
        ("POST", "/api/pins/7/8", 404),
        ("POST", "/pins/7", 404),
        ("POST", "/api/queued", 404),
    ],
)
def test_what_matches_no_route_runs_nothing(caller: Caller, method: str, path: str, status: int) -> None:
    assert caller.ask(method, path).status_code == status
    assert caller.runs == 0


def test_an_exception_is_a_bare_500_and_a_report_to_the_host(caller: Caller) -> None:
    answer = caller.ask("POST", "/api/leak", data="1234")

    assert (answer.status_code, answer.content) == (500, b"")
    (report,) = caller.app.reports
    assert report.function == "leak"
    assert "the pin is 1234" in report.message
    assert "raise ValueError" in report.stack


@pytest.mark.parametrize(
    ("fault", "ran"),
    [(Fault.RESET, 0), (Fault.DROP_RESPONSE, 1), (Fault.CRASH, 1)],
)
def test_a_lost_response_says_nothing_about_whether_the_function_ran(
    caller: Caller, fault: Fault, ran: int
) -> None:
    caller.app.fail_next(fault)

    with pytest.raises(requests.exceptions.ConnectionError):
        caller.pin()

    assert caller.runs == ran
    assert caller.pin().status_code == 201


def test_a_server_error_comes_before_the_function(caller: Caller) -> None:
    caller.app.fail_next(Fault.SERVER_ERROR, times=2)
    assert [caller.pin().status_code for _ in range(3)] == [500, 500, 201]
    assert caller.runs == 1


def test_a_delay_changes_nothing_else(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_functions, "DELAY_SECONDS", 0.01)
    caller.app.fail_next(Fault.DELAY)
    assert caller.pin().status_code == 201


def test_an_app_that_dies_is_started_again(caller: Caller) -> None:
    first = caller.pin().json()["process"]

    assert caller.ask("POST", "/api/exit").status_code == 503
    second = caller.pin().json()["process"]
    caller.app.kill()
    third = caller.pin().json()["process"]

    assert len({first, second, third}) == 3
    assert caller.app.logs.count("a pin for 7") == 3


def test_requests_run_at_the_same_time(caller: Caller) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda number: caller.ask("POST", f"/api/pins/{number}", json=number), range(40))
        )
    assert [answer.json()["body"] for answer in answers] == list(range(40))
    assert [answer.json()["account"] for answer in answers] == [str(number) for number in range(40)]


def test_an_app_that_cannot_be_indexed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text("raise RuntimeError('no such setting')")
    with LocalCA() as ca, pytest.raises(RuntimeError, match="no such setting"):
        AzureFunctions(tmp_path, ca=ca)


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/api/a", "/api/a", {}),
        ("/api/a.b", "/api/aXb", None),
        ("/api/{x}/y/{z:int}", "/api/1/y/2", {"x": "1", "z": "2"}),
        ("/api/{x?}", "/api/", {"x": ""}),
        ("/api/{*rest}", "/api/a/b", {"rest": "a/b"}),
        ("/api/{x}", "/api/a/b", None),
    ],
)
def test_routes_are_templates(template: str, path: str, expected: dict[str, str] | None) -> None:
    found = azure_functions._pattern(template).fullmatch(path)
    assert (found.groupdict() if found else None) == expected
