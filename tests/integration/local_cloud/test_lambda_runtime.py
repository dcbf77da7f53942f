from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local_cloud.lambda_runtime import LambdaRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLER = """
import os, time

STARTED = os.getpid()

def handler(event, context):
    act = event.get("act")
    if act == "raise":
        raise ValueError("the number is 078-05-1120")
    if act == "print":
        print("a line in the log")
    if act == "exit":
        os._exit(3)
    if act == "sleep":
        time.sleep(60)
    if act == "large":
        return "x" * (7 * 1024 * 1024)
    return {
        "event": event,
        "request": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "milliseconds": context.get_remaining_time_in_millis(),
        "setting": os.environ.get("SETTING"),
        "home": os.environ.get("SECRET_OF_THE_SHELL"),
        "process": STARTED,
    }
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(HANDLER)
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such table')")
    return tmp_path


@pytest.fixture
def function(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaRuntime]:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "x")
    with LambdaRuntime(
        "app.handler", directory=package, environment={"SETTING": "on"}, name="forecast"
    ) as runtime:
        yield runtime


def test_a_handler_gets_the_event_the_context_and_only_its_own_environment(function: LambdaRuntime) -> None:
    payload = function.invoke({"n": 1}).payload

    assert payload["event"] == {"n": 1}
    assert payload["arn"].endswith(":function:forecast")
    assert 0 < payload["milliseconds"] <= 30_000
    assert payload["setting"] == "on"
    assert payload["home"] is None


def test_invocations_share_one_warm_process(function: LambdaRuntime) -> None:
    first, second = (function.invoke({}).payload for _ in range(2))

    assert first["process"] == second["process"]
    assert first["request"] != second["request"]


def test_an_exception_is_reported_with_everything_the_runtime_posted(function: LambdaRuntime) -> None:
    result = function.invoke({"act": "raise"})

    assert result.error is not None
    assert result.error.type == "ValueError"
    assert result.error.message == "the number is 078-05-1120"
    assert "078-05-1120" in result.logs
    assert any(b"078-05-1120" in post.body for post in function.posts)
    assert any("078-05-1120" in value for post in function.posts for value in post.headers.values())


def test_the_logs_of_an_invocation_are_its_own(function: LambdaRuntime) -> None:
    assert "a line in the log" in function.invoke({"act": "print"}).logs
    assert "a line in the log" not in function.invoke({}).logs
    assert "a line in the log" in function.logs


def test_a_module_that_cannot_be_imported_is_an_error_of_the_start(package: Path) -> None:
    with LambdaRuntime("broken.handler", directory=package) as runtime:
        error = runtime.invoke({}).error

    assert error is not None
    assert "no such table" in error.message


def test_a_process_that_dies_is_replaced_for_the_next_invocation(function: LambdaRuntime) -> None:
    first = function.invoke({}).payload["process"]

    error = function.invoke({"act": "exit"}).error

    assert error is not None
    assert error.type == "Runtime.ExitError"
    assert function.invoke({}).payload["process"] != first


def test_a_function_past_its_timeout_is_killed(package: Path) -> None:
    with LambdaRuntime("app.handler", directory=package, timeout_seconds=1.5) as runtime:
        error = runtime.invoke({"act": "sleep"}).error
        after = runtime.invoke({})

    assert error is not None
    assert error.type == "Sandbox.Timedout"
    assert after.error is None


def test_a_response_over_six_megabytes_is_refused(function: LambdaRuntime) -> None:
    error = function.invoke({"act": "large"}).error

    assert error is not None
    assert error.type == "Function.ResponseSizeTooLarge"


def test_an_event_over_six_megabytes_is_refused(function: LambdaRuntime) -> None:
    with pytest.raises(ValueError, match="6 MB"):
        function.invoke("x" * (7 * 1024 * 1024))
