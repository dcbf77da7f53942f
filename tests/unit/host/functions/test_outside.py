"""What an observer learns beside the answer: lengths, times, logs, texts of errors."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, DeniedError, FunctionError, LimitError
from cloister.function import boolean, enum, number, record
from cloister.function.outputs import OutputClass
from cloister_host.functions.messages import BatchInvoked
from cloister_host.functions.padding import next_tick, padding
from support.claims import claims_of, disclosed
from support.workbench import Workbench

TALKS = """
import logging
import sys
from typing import Annotated
from cloister.function import Limits, boolean, function, sealed

@function("talks", output=boolean(), logs="logs", limits=Limits(timeout_seconds=2))
def talks(pin: Annotated[str, sealed("pins")], how: str = "") -> bool:
    print("the pin is", pin)
    logging.getLogger("mine").info("an info")
    print("to standard error", file=sys.stderr, end="")
    if how == "fail":
        raise ValueError("secret text " + pin)
    while how == "for ever":
        pass
    for _ in range(100_000 if how == "flood" else 0):
        print("x" * 100)
    return True
"""


@pytest.fixture
def talks(bench: Workbench) -> Workbench:
    bench.key("pins")
    bench.key("logs")
    bench.deploy(TALKS)
    bench.grant("admin", "function.debug", "function/talks")
    return bench


def call(bench: Workbench, how: str = "") -> Any:
    return bench.invoke("talks@prod", inputs={"pin": bench.seal("pins", "4711"), "how": how})


def entries(bench: Workbench, **page: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench.call("function.logs", {"function": "talks", **page})["entries"]
    return found


def text(bench: Workbench, entry: dict[str, Any]) -> str:
    return str(bench.open(entry["sealed"], function="talks", entry=entry["entry"]))


# --- logs -------------------------------------------------------------------------------------------


def test_what_a_function_prints_and_logs_reaches_the_tenant_sealed(talks: Workbench) -> None:
    call(talks)
    (entry,) = entries(talks)
    assert Sealed(entry["sealed"]).kid == "logs.1"
    assert text(talks, entry) == "the pin is 4711\nINFO mine: an info\nto standard error"
    assert (entry["outcome"], entry["principal"]) == ("done", "lambda")
    assert "4711" not in json.dumps(entry)


@pytest.mark.parametrize(("how", "error"), [("fail", FunctionError), ("for ever", LimitError)])
def test_a_call_that_fails_or_is_killed_keeps_its_logs(
    talks: Workbench, how: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(talks, how)
    (entry,) = entries(talks)
    assert text(talks, entry).startswith("the pin is 4711\n")
    assert entry["outcome"] == error.code  # type: ignore[attr-defined]


def test_a_flood_of_logs_ends_at_the_limit_and_harms_nothing(talks: Workbench) -> None:
    assert call(talks, "flood")["value"] is True
    (entry,) = entries(talks)
    assert len(text(talks, entry)) == 1 << 16


def test_logs_of_one_call_are_not_in_those_of_the_next(talks: Workbench) -> None:
    call(talks)
    call(talks)
    first, second = entries(talks)
    assert text(talks, first) == text(talks, second)
    assert entries(talks, after=first["entry"]) == [second]


def test_logs_need_the_right_and_are_forgotten_after_a_week(talks: Workbench) -> None:
    call(talks)
    with pytest.raises(DeniedError):
        talks.call("function.logs", {"function": "talks"}, caller=talks.caller("lambda", "faas"))
    talks.clock.now += 8 * 86_400
    call(talks)
    assert len(entries(talks)) == 1


def test_a_function_without_a_key_for_logs_keeps_none(bench: Workbench) -> None:
    bench.key("pins")
    bench.deploy(TALKS.replace(', logs="logs"', ""))
    call(bench)
    assert entries(bench) == []


def test_a_function_with_logs_needs_the_grant_to_seal_them(bench: Workbench) -> None:
    bench.key("pins")
    bench.key("logs")
    digest = bench.deploy(TALKS).digest
    need = {"principal": f"function:{digest}", "action": "seal", "resource": "key/logs"}
    bench.call("grant.delete", need)
    with pytest.raises(DeniedError):
        call(bench)


# --- errors -----------------------------------------------------------------------------------------


def test_the_text_of_an_error_leaves_only_while_debugging_is_on(talks: Workbench) -> None:
    with pytest.raises(FunctionError) as quiet:
        call(talks, "fail")
    assert "4711" not in str(quiet.value)
    talks.call("function.debug", {"function": "talks", "minutes": 10})
    with pytest.raises(FunctionError, match=r"ValueError: secret text 4711 \(function.py:\d+\)"):
        call(talks, "fail")
    assert claims_of(call(talks))["debug"] is True
    talks.clock.now += 601
    with pytest.raises(FunctionError) as lapsed:
        call(talks, "fail")
    assert "4711" not in str(lapsed.value)
    assert claims_of(call(talks))["debug"] is False


def test_debugging_is_turned_off_at_once(talks: Workbench) -> None:
    talks.call("function.debug", {"function": "talks", "minutes": 10})
    talks.call("function.debug", {"function": "talks", "minutes": 0})
    with pytest.raises(FunctionError) as quiet:
        call(talks, "fail")
    assert "4711" not in str(quiet.value)


def test_debugging_is_a_right_of_its_own(talks: Workbench) -> None:
    talks.grant("lambda", "function.manage", "function/talks")
    with pytest.raises(DeniedError):
        talks.call(
            "function.debug", {"function": "talks", "minutes": 10}, caller=talks.caller("lambda", "faas")
        )
    with pytest.raises(ConfigurationError):
        talks.call("function.debug", {"function": "talks", "minutes": 1441})


def test_a_worker_that_offers_details_unasked_is_not_quoted(bench: Workbench) -> None:
    bench.deploy(
        """
import sys
from cloister.function import boolean, function
from cloister_host.functions.frames import Channel, Failed

@function("sly", output=boolean())
def sly(value: str) -> bool:
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("channel"), Channel):
        number = frame.f_locals.get("number")
        frame = frame.f_back
    frame.f_locals["channel"].send(Failed(number, "ValueError", value))
    return True
"""
    )
    with pytest.raises(FunctionError) as failed:
        bench.invoke("sly@prod", inputs={"value": "4711"})
    assert "4711" not in f"{failed.value!r} {failed.value} {failed.value.hint}"


# --- length and time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "values"),
    [
        (boolean(), [True, False]),
        (enum("no", "certainly", "é"), ["no", "certainly", "é"]),
        (number(minimum=-5, maximum=1000, step=1), [-5, 0, 1000]),
        (number(minimum=0, maximum=1, step=0.001), [0.0, 0.001, 1.0]),
        (
            record(score=number(minimum=0, maximum=9, step=0.5), band=enum("a", "bcdef")),
            [{"score": 0.5, "band": "a"}, {"score": 9.0, "band": "bcdef"}],
        ),
    ],
)
@given(extra=st.integers(0, 9000), picks=st.lists(st.integers(0, 9), max_size=30))
def test_a_reply_has_one_length_whatever_it_says(
    output: OutputClass, values: list[Any], extra: int, picks: list[int]
) -> None:
    def length(chosen: list[Any]) -> int:
        result = BatchInvoked(values=chosen, output=output.kind, errors={}, receipt={"r": "x" * extra})
        padded = msgspec.structs.replace(result, padding=padding(result, output, chosen))
        return len(msgspec.json.encode(padded))

    chosen = [values[pick % len(values)] for pick in picks]
    assert length(chosen) == length([values[0]] * len(chosen))


def test_a_sealed_output_tells_a_power_of_two_instead_of_its_length(bench: Workbench) -> None:
    bench.key("answers")
    bench.deploy(
        """
from cloister.function import function, sealed

@function("verdict", output=sealed("answers"))
def verdict(yes: bool) -> str:
    return "yes, certainly" if yes else "no"
"""
    )
    answers = [bench.invoke("verdict@prod", inputs={"yes": yes})["value"] for yes in (True, False)]
    assert len(answers[0]) == len(answers[1])
    assert [bench.open(answer) for answer in answers] == ["yes, certainly", "no"]


def test_time_is_rounded_up_to_a_tick() -> None:
    assert [next_tick(seconds, 50) for seconds in (0.0, 0.001, 0.05, 0.051, 0.2)] == [
        0.05,
        0.05,
        0.05,
        0.1,
        0.2,
    ]
    assert next_tick(0.123, 0) == 0.123


PADS = """
from cloister.function import Limits, boolean, function

@function("pads", output=boolean(), limits=Limits(pad_milliseconds=250))
def pads(fails: bool) -> bool:
    if fails:
        raise ValueError
    return True
"""


def test_good_and_bad_answers_come_on_a_tick(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.deploy(PADS)
    invocation = bench.parts.functions._invocation
    slept: list[float] = []
    now = iter(range(10**6))
    monkeypatch.setattr(invocation, "_sleep", slept.append)
    monkeypatch.setattr("cloister_host.functions.invocation.time.monotonic", lambda: next(now) / 64)
    result = bench.invoke("pads@prod", inputs={"fails": False})
    with pytest.raises(FunctionError):
        bench.invoke("pads@prod", inputs={"fails": True})
    assert len(slept) == 2
    assert all(0 < seconds <= 0.25 for seconds in slept)
    assert disclosed(result)["milliseconds"] % 250 == 0
