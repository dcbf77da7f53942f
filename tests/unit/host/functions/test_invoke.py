"""From a sealed input to what may leave, by way of a real worker process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloister.errors import (
    ConfigurationError,
    DeniedError,
    FunctionError,
    LimitError,
    OpenError,
)
from cloister.function.bundle import build_bundle
from support.claims import claims_of, disclosed
from support.workbench import Workbench

FORECAST = """
from dataclasses import dataclass
from typing import Annotated
from cloister.function import function, sealed

@dataclass
class History:
    bills: list[int]

@dataclass
class Forecast:
    next_bill: float

@function("forecast", output=sealed("forecasts", context=["customer"]))
def forecast(history: Annotated[History, sealed("histories", context=["customer"])]) -> Forecast:
    return Forecast(next_bill=sum(history.bills) / len(history.bills))
"""

BREACHED = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("breached", batch=True, output=boolean())
def breached(ssn: Annotated[list[str], sealed("ssn", context=["member_id"])]) -> list[bool]:
    assert None not in ssn
    return [value.startswith("078") for value in ssn]
"""

ADD = """
from cloister.function import function, number

@function("add", output=number(minimum=0, maximum=100, step=1))
def add(a: int, b: int = 1) -> int:
    return a + b
"""

PIN = """
from dataclasses import dataclass
from typing import Annotated
from cloister.function import function, record, sealed, text, token

@dataclass
class PinTransfer:
    account: str
    token: str

@function("pin", output=record(account=text(max_chars=32), token=token("pins")))
def pin(pin: Annotated[str, sealed("pins", context=["account"])], account: str) -> PinTransfer:
    return PinTransfer(account=account, token=pin)
"""


@pytest.fixture
def forecast(bench: Workbench) -> Workbench:
    bench.key("histories")
    bench.key("forecasts")
    bench.deploy(FORECAST)
    return bench


@pytest.fixture
def breached(bench: Workbench) -> Workbench:
    bench.key("ssn")
    bench.deploy(BREACHED)
    return bench


def test_a_sealed_history_becomes_a_sealed_forecast(forecast: Workbench) -> None:
    history = forecast.seal("histories", {"bills": [10, 20, 30]}, customer="c1")
    result = forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})
    assert result["output"] == "sealed"
    assert forecast.open(result["value"], customer="c1") == {"next_bill": 20.0}


def test_the_receipt_names_the_code_and_hides_the_rest(forecast: Workbench) -> None:
    bundle = forecast.deploy(FORECAST, alias="again")
    history = forecast.seal("histories", {"bills": [10, 20, 30]}, customer="customer-4711")
    result = forecast.invoke(
        "forecast@again", inputs={"history": history}, context={"customer": "customer-4711"}
    )
    claims = claims_of(result)
    assert claims["function_digest"] == bundle.digest
    assert claims["kids"] == ["forecasts.1", "histories.1"]
    assert claims["sandbox"] == "process"
    assert "customer-4711" not in json.dumps(claims)
    assert claims["eat_nonce"] == "digest-of-the-sealed-request"
    assert disclosed(result)["context"] == {"customer": "customer-4711"}


def test_the_audit_log_has_the_invocation(forecast: Workbench) -> None:
    history = forecast.seal("histories", {"bills": [1]}, customer="c1")
    forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})
    entry = next(entry for entry in reversed(forecast.audit()) if entry["act"] == "function.invoke")
    assert (entry["principal"], entry["resource"], entry["outcome"]) == (
        "lambda",
        "function/forecast",
        "done",
    )


def test_another_customers_history_does_not_open(forecast: Workbench) -> None:
    history = forecast.seal("histories", {"bills": [1]}, customer="c2")
    with pytest.raises(OpenError):
        forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})


def test_a_value_under_another_key_does_not_open(forecast: Workbench) -> None:
    history = forecast.seal("forecasts", {"bills": [1]}, customer="c1")
    with pytest.raises(OpenError):
        forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})


def test_an_input_that_is_not_of_its_type_is_named(forecast: Workbench) -> None:
    history = forecast.seal("histories", {"bills": "none"}, customer="c1")
    with pytest.raises(FunctionError, match="input history is not of its declared type"):
        forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})


@pytest.mark.parametrize(
    ("payload", "teaches"),
    [
        ({"inputs": {}}, "inputs: history; context: customer"),
        ({"inputs": {"history": "x"}}, "context: customer"),
        ({"inputs": {"history": "x", "more": 1}, "context": {"customer": "c"}}, "too many"),
        ({"inputs": {"history": "x"}, "context": {"customer": "c", "more": "d"}}, "too many"),
        ({"inputs": {"history": "x"}, "context": {"customer": ["c"]}}, "one text a context name"),
        ({"columns": {"history": ["x"]}, "context": {"customer": "c"}}, "send inputs, not columns"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_with_what_would(
    forecast: Workbench, payload: dict[str, Any], teaches: str
) -> None:
    with pytest.raises(ConfigurationError, match=teaches):
        forecast.invoke("forecast@prod", **payload)


def test_without_the_right_to_invoke_nothing_is_told(bench: Workbench) -> None:
    bench.deploy(ADD, grant=False)
    for function in ("add@prod", "add@nope", "other@prod"):
        with pytest.raises(DeniedError, match="lambda has no grant for invoke on this resource"):
            bench.invoke(function, inputs={"a": 1})


@pytest.mark.parametrize("missing", [("use-in-function", "key/histories"), ("seal", "key/forecasts")])
def test_a_digest_without_one_of_its_grants_does_not_run(
    forecast: Workbench, missing: tuple[str, str]
) -> None:
    bundle = build_bundle(forecast.write(FORECAST))
    principal = f"function:{bundle.digest}"
    forecast.call("grant.delete", {"principal": principal, "action": missing[0], "resource": missing[1]})
    history = forecast.seal("histories", {"bills": [1]}, customer="c1")
    with pytest.raises(DeniedError, match=missing[0]):
        forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})


def test_a_changed_function_has_no_rights(forecast: Workbench) -> None:
    changed = forecast.deploy(FORECAST + "\n# changed\n", grant=False)
    history = forecast.seal("histories", {"bills": [1]}, customer="c1")
    with pytest.raises(DeniedError, match=changed.digest):
        forecast.invoke("forecast@prod", inputs={"history": history}, context={"customer": "c1"})


def test_plain_inputs_and_defaults(bench: Workbench) -> None:
    bench.deploy(ADD)
    assert bench.invoke("add@prod", inputs={"a": 3, "b": 4})["value"] == 7
    assert bench.invoke("add@prod", inputs={"a": 3})["value"] == 4


def test_a_plain_input_of_another_type_is_refused(bench: Workbench) -> None:
    bench.deploy(ADD)
    with pytest.raises(ConfigurationError, match="input a is not of its declared type"):
        bench.invoke("add@prod", inputs={"a": "3"})


def test_a_result_outside_its_class_stays_in(bench: Workbench) -> None:
    bench.deploy(ADD)
    with pytest.raises(FunctionError, match="output class number"):
        bench.invoke("add@prod", inputs={"a": 1000})


def test_tokens_are_made_by_the_host(bench: Workbench) -> None:
    bench.key("pins")
    bench.call("policy.create", {"policy": "pins", "plan": "vault", "alphabet": "digits", "length": 16})
    bench.deploy(PIN)
    sealed = bench.seal("pins", "4711", account="a1")
    value = bench.invoke("pin@prod", inputs={"pin": sealed, "account": "a1"})["value"]
    assert value["account"] == "a1"
    assert len(value["token"]) == 16
    assert value["token"] != "4711"


def test_a_context_may_be_given_as_the_input_of_its_name_or_the_other_way(bench: Workbench) -> None:
    bench.key("pins")
    bench.call("policy.create", {"policy": "pins", "plan": "vault", "alphabet": "digits", "length": 16})
    bench.deploy(PIN)
    sealed = bench.seal("pins", "4711", account="a1")
    given = bench.invoke("pin@prod", inputs={"pin": sealed}, context={"account": "a1"})
    assert given["value"]["account"] == "a1"


def test_one_accounts_pin_is_not_sent_as_anothers(bench: Workbench) -> None:
    bench.key("pins")
    bench.call("policy.create", {"policy": "pins", "plan": "vault", "alphabet": "digits", "length": 16})
    bench.deploy(PIN)
    sealed = bench.seal("pins", "4711", account="a1")
    with pytest.raises(ConfigurationError, match="input account and the context account differ"):
        bench.invoke("pin@prod", inputs={"pin": sealed, "account": "a2"}, context={"account": "a1"})
    with pytest.raises(OpenError):
        bench.invoke("pin@prod", inputs={"pin": sealed, "account": "a2"})


def test_a_batch_reports_each_bad_row_and_answers_the_rest(breached: Workbench) -> None:
    column = [
        breached.seal("ssn", "078-05-1120", member_id="1"),
        breached.seal("ssn", "219-09-9999", member_id="2"),
        None,
        "rubbish",
        breached.seal("ssn", "078-05-1120", member_id="5"),
        breached.seal("ssn", 78, member_id="6"),
        breached.seal("ssn", "078-05-1120", member_id="7"),
    ]
    context = {"member_id": ["1", "2", "3", "4", "other", "6", "7"]}
    result = breached.invoke("breached@prod", columns={"ssn": column}, context=context)
    assert result["values"] == [True, False, None, None, None, None, True]
    assert result["errors"] == {"3": {"code": "open"}, "4": {"code": "open"}, "5": {"code": "function"}}
    assert disclosed(result)["rows"] == {"count": 7, "failed": 3}


def test_a_batch_of_nothing_and_of_nulls_runs_no_code(breached: Workbench) -> None:
    assert breached.invoke("breached@prod", columns={"ssn": []}, context={"member_id": []})["values"] == []
    nulls = breached.invoke(
        "breached@prod", columns={"ssn": [None, None]}, context={"member_id": ["1", None]}
    )
    assert nulls["values"] == [None, None]


@pytest.mark.parametrize(
    ("payload", "teaches"),
    [
        ({"columns": {"ssn": ["a"]}, "context": {"member_id": ["1", "2"]}}, "differ in length"),
        ({"columns": {"ssn": ["a"]}}, "context: member_id"),
        ({"inputs": {"ssn": ["a"]}, "context": {"member_id": ["1"]}}, "send columns"),
        ({"columns": {"ssn": ["a"]}, "context": {"member_id": "1"}}, "one list a context name"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_with_what_would(
    breached: Workbench, payload: dict[str, Any], teaches: str
) -> None:
    with pytest.raises(ConfigurationError, match=teaches):
        breached.invoke("breached@prod", **payload)


def test_a_batch_that_loses_a_row_stays_in(bench: Workbench) -> None:
    bench.key("ssn")
    bench.deploy(BREACHED.replace("for value in ssn]", "for value in ssn[1:]]"))
    column = [bench.seal("ssn", "078-05-1120", member_id="1")]
    with pytest.raises(FunctionError, match="one value a row"):
        bench.invoke("breached@prod", columns={"ssn": column}, context={"member_id": ["1"]})


FAILING = """
from cloister.function import boolean, function

class Odd(Exception):
    pass

class Leak(Exception):
    pass

@function("failing", output=boolean(), raises=[Odd])
def failing(how: str) -> bool:
    secret = "plain-4711"
    if how == "value":
        raise ValueError(secret)
    if how == "declared":
        raise Odd(secret)
    if how == "made up":
        raise type(secret.replace("-", "_"), (Exception,), {})(secret)
    if how == "exit":
        raise SystemExit(secret)
    if how == "die":
        import os
        os._exit(7)
    if how == "memory":
        return bool(bytearray(1 << 40))
    return True
"""


@pytest.mark.parametrize(
    ("how", "error", "shown"),
    [
        ("value", FunctionError, "raised ValueError"),
        ("declared", FunctionError, "raised Odd"),
        ("made up", FunctionError, "raised Exception"),
        ("exit", FunctionError, "raised Exception"),
        ("die", FunctionError, "process ended"),
        ("memory", LimitError, "too much memory"),
    ],
)
def test_a_failure_leaves_as_a_known_class_name_and_nothing_else(
    bench: Workbench, how: str, error: type[Exception], shown: str
) -> None:
    bench.deploy(FAILING)
    with pytest.raises(error, match=shown) as caught:
        bench.invoke("failing@prod", inputs={"how": how})
    assert "4711" not in repr(caught.getrepr())
    assert bench.audit()[-1]["outcome"] == "failed"
    # The next call is served, by the same or another process.
    assert bench.invoke("failing@prod", inputs={"how": "not"})["value"] is True


def test_a_function_that_does_not_end_is_ended(bench: Workbench) -> None:
    bench.deploy(
        "from cloister.function import *\n"
        '@function("endless", output=boolean(), limits=Limits(timeout_seconds=1))\n'
        "def endless(on: bool) -> bool:\n"
        "    while on:\n"
        "        pass\n"
        "    return on\n"
    )
    with pytest.raises(LimitError, match="took too long"):
        bench.invoke("endless@prod", inputs={"on": True})
    assert bench.invoke("endless@prod", inputs={"on": False})["value"] is False


def test_two_principals_never_share_a_process(bench: Workbench) -> None:
    bench.deploy(
        "from cloister.function import *\n"
        "seen: list[str] = []\n"
        '@function("memory", output=number(minimum=0, maximum=9, step=1))\n'
        "def memory(value: str) -> int:\n"
        "    seen.append(value)\n"
        "    return len(seen)\n"
    )
    bench.grant("admin", "invoke", "function/memory")
    assert bench.invoke("memory@prod", inputs={"value": "a"})["value"] == 1
    assert bench.invoke("memory@prod", inputs={"value": "b"})["value"] == 2
    other = bench.call("function.invoke", {"function": "memory@prod", "inputs": {"value": "c"}})
    assert other["value"] == 1


def test_only_values_under_a_data_key_are_taken_where_the_author_counts(bench: Workbench) -> None:
    bench.key("orders", "seal-public")
    bench.deploy(
        "from typing import Annotated\n"
        "from cloister.function import *\n"
        '@function("order", output=boolean())\n'
        'def order(order: Annotated[str, sealed("orders", authenticated=True)]) -> bool:\n'
        "    return True\n"
    )
    with pytest.raises(OpenError):
        bench.invoke("order@prod", inputs={"order": bench.seal("orders", "buy")})


HOSTILE = """
import struct, sys
import msgspec
from cloister.function import Limits, function, sealed
from cloister_host.functions.frames import Channel

@function("hostile", output=sealed("out"), limits=Limits(timeout_seconds=5))
def hostile(how: str) -> str:
    '''Answer past the conversions of the worker.'''
    value = {
        "extension": msgspec.msgpack.Ext(5, b"x"),
        "keys": {1: 2},
        "float": float("nan"),
        "bytes": {"inside": b"json"},
        "time": __import__("datetime").datetime(2026, 1, 1, tzinfo=__import__("datetime").UTC),
    }[how]
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("channel"), Channel):
        number = frame.f_locals.get("number")
        frame = frame.f_back
    encoded = msgspec.msgpack.encode(["returned", number, value])
    frame.f_locals["channel"]._connection.sendall(struct.pack(">I", len(encoded)) + encoded)
    while True:
        pass
"""


@pytest.mark.parametrize(
    ("how", "refusal"),
    [
        ("keys", ConfigurationError),
        ("float", ConfigurationError),
        ("bytes", ConfigurationError),
        # No frame may hold these at all: its process is ended.
        ("extension", FunctionError),
        ("time", FunctionError),
    ],
)
def test_a_value_that_is_not_json_is_not_sealed(bench: Workbench, how: str, refusal: type[Exception]) -> None:
    bench.key("out")
    bench.deploy(HOSTILE)
    with pytest.raises(refusal):
        bench.invoke("hostile@prod", inputs={"how": how})
