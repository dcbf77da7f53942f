"""A remote function as BigQuery meets it: rows and replies, errors it retries or shows, repeated requests."""

from __future__ import annotations

import datetime as dt
import io
import json
import types
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest
from functions_framework import create_app
from hypothesis import given
from hypothesis import strategies as st

from cloister.envelope import Sealed, seal_to
from cloister.errors import ConfigurationError, DeniedError, UnavailableError
from cloister.jose import generate_key
from cloister.receipts import Receipt
from cloister.reply import BatchReply
from cloister_gcp import Token, remote_function, remote_functions
from support.gcp_events import event

RECEIPT = Receipt(id="r-1", token="a.b.c")
SECRET = "078-05-1120"
CALLER = "//bigquery.googleapis.com/projects/p/jobs/p:US.job"


@pytest.fixture(scope="session")
def sealed() -> str:
    return str(seal_to("a number", generate_key("HPKE-7-KE").public(), kid="ssn.1"))


@dataclass
class Invoker:
    """Answers True for even members, with the errors it is told."""

    errors: dict[int, str] = field(default_factory=dict)
    raises: Exception | None = None
    answer: object = None
    calls: list[dict] = field(default_factory=list)

    def invoke(self, function, /, **inputs):
        raise AssertionError("a remote function calls batches only")

    def invoke_batch(self, function, /, *, context=None, idempotency_key=None, **columns):
        self.calls.append({"function": function, "context": context, "key": idempotency_key, **columns})
        if self.raises is not None:
            raise self.raises
        if self.answer is not None:
            return BatchReply(values=self.answer, errors=self.errors, receipt=RECEIPT)
        members = [int(text) for text in context["member_id"]]
        values = [None if i in self.errors else m % 2 == 0 for i, m in enumerate(members)]
        return BatchReply(values=values, errors=self.errors, receipt=RECEIPT)


def declare(invoker, **changes):
    settings = {
        "args": {"ssn": Sealed, "member_id": int},
        "context": ["member_id"],
        "returns": bool,
        "on_row_error": "null",
        **changes,
    }
    return remote_function("ssn-breached@prod", client=invoker, **settings)


def request(calls, **members):
    return {"requestId": "124ab1c", "caller": CALLER, "sessionUser": "a@b.c", "calls": calls, **members}


def ask(endpoint, body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    text, status, _headers = endpoint(types.SimpleNamespace(stream=io.BytesIO(raw)))
    return status, json.loads(text)


# --- rows and replies ---


def test_a_batch_is_one_call_to_the_enclave(sealed):
    invoker = Invoker()
    calls = [[sealed, member] for member in range(100)]
    assert ask(declare(invoker), request(calls)) == (200, {"replies": [m % 2 == 0 for m in range(100)]})
    (call,) = invoker.calls
    assert call["function"] == "ssn-breached@prod"
    assert call["ssn"] == [sealed] * 100
    assert call["context"] == {"member_id": [str(member) for member in range(100)]}
    assert "member_id" not in call


def test_a_number_beyond_two_to_the_53_comes_as_text_and_means_the_same(sealed):
    invoker = Invoker()
    ask(declare(invoker), request([[sealed, "9007199254740993"], [sealed, 9007199254740992]]))
    assert invoker.calls[0]["context"]["member_id"] == ["9007199254740993", "9007199254740992"]


@pytest.mark.parametrize("null_at", [0, 1])
def test_a_row_with_a_null_answers_null_and_is_not_sent(sealed, null_at):
    invoker = Invoker()
    row = [sealed, 2]
    row[null_at] = None
    assert ask(declare(invoker), request([row, [sealed, 4]])) == (200, {"replies": [None, True]})
    assert len(invoker.calls[0]["ssn"]) == 1


def test_only_nulls_are_answered_without_a_call(sealed):
    invoker = Invoker()
    assert ask(declare(invoker), request([[None, 1], [None, 2]])) == (200, {"replies": [None, None]})
    assert ask(declare(invoker), request([])) == (200, {"replies": []})
    assert invoker.calls == []


@pytest.mark.parametrize(
    "row",
    [
        [SECRET, 1],
        ["a.b.c.d.e", 1],
        ["", 1],
        [17, 1],
        ["\ud800", 1],
        ["SEALED", "one"],
        ["SEALED", True],
        ["SEALED", 1.5],
        ["SEALED", "9" * 30],
        ["SEALED", [1]],
    ],
    ids=repr,
)
def test_a_malformed_row_is_null_and_the_others_are_answered(sealed, row):
    row = [sealed if value == "SEALED" else value for value in row]
    invoker = Invoker()
    status, body = ask(declare(invoker), request([[sealed, 2], row, [sealed, 3]]))
    assert (status, body) == (200, {"replies": [True, None, False]})
    assert len(invoker.calls[0]["ssn"]) == 2


def test_a_row_that_does_not_open_is_null(sealed):
    invoker = Invoker(errors={1: "open"})
    calls = [[sealed, 2], [sealed, 4], [sealed, 5]]
    assert ask(declare(invoker), request(calls)) == (200, {"replies": [True, None, False]})


def test_an_error_finds_its_row_behind_rows_that_were_not_sent(sealed):
    invoker = Invoker(errors={1: "open"})
    calls = [[None, 2], [SECRET, 2], [sealed, 2], [sealed, 4]]
    assert ask(declare(invoker), request(calls)) == (200, {"replies": [None, None, True, None]})


def test_with_fail_a_bad_row_fails_the_query_and_is_counted(sealed):
    invoker = Invoker(errors={0: "open"})
    endpoint = declare(invoker, on_row_error="fail")
    status, body = ask(endpoint, request([[sealed, 2], [SECRET, 2], [sealed, 3]]))
    assert status == 400
    assert "2 of 3 rows failed (malformed: 1, open: 1)" in body["errorMessage"]
    assert SECRET not in body["errorMessage"]


def test_failing_is_the_default(sealed):
    endpoint = remote_function("f@prod", args={"ssn": Sealed}, returns=bool, client=Invoker())
    assert ask(endpoint, request([[SECRET]]))[0] == 400


def test_the_documented_request_is_read():
    invoker = Invoker(answer=["x", "y"])
    args = {"a": str | None, "b": int | None, "c": str | None, "d": str | None}
    endpoint = remote_function("f@prod", args=args, returns=str, client=invoker)
    assert ask(endpoint, event("bigquery_remote_function")) == (200, {"replies": ["x", "y"]})
    assert invoker.calls[0]["b"] == [1, 9007199254740993]


# --- what BigQuery retries, and what it shows ---


@pytest.mark.parametrize("policy", ["null", "fail"])
def test_an_outage_of_a_row_is_never_a_null(sealed, policy):
    endpoint = declare(Invoker(errors={0: "unavailable"}), on_row_error=policy)
    assert ask(endpoint, request([[sealed, 2], [sealed, 4]]))[0] == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnavailableError("the host did not answer"), 503),
        (UnavailableError("too large", retryable=False), 400),
        (DeniedError("no grant for invoke"), 400),
        (ValueError(SECRET), 400),
    ],
    ids=["outage", "permanent outage", "denial", "a bug"],
)
def test_only_what_can_pass_is_retried(sealed, monkeypatch, error, status):
    # Errors that the client raises come from our package; those of anyone else are held back.
    monkeypatch.setitem(Invoker.invoke_batch.__globals__, "__name__", "cloister.client")
    answered, body = ask(declare(Invoker(raises=error)), request([[sealed, 2]]))
    assert answered == status
    assert body.keys() == {"errorMessage"}
    assert SECRET not in body["errorMessage"]


def test_a_message_fits_into_a_kilobyte(sealed, monkeypatch):
    monkeypatch.setitem(Invoker.invoke_batch.__globals__, "__name__", "cloister.client")
    endpoint = declare(Invoker(raises=DeniedError("é" * 5000)))
    text, status, _ = endpoint(
        types.SimpleNamespace(stream=io.BytesIO(json.dumps(request([[sealed, 2]])).encode()))
    )
    assert status == 400
    assert len(text.encode()) < 1024
    assert "éé" in json.loads(text)["errorMessage"]


def test_what_is_logged_carries_no_data(sealed, caplog):
    ask(declare(Invoker(raises=ValueError(SECRET))), request([[sealed, 2]]))
    ask(declare(Invoker()), request([[SECRET, 2], [sealed, 3]]))
    assert "malformed: 1" in caplog.text
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("answer", [[True], [True, False, True]], ids=["a value too few", "a value too many"])
def test_another_number_of_answers_fails_the_query(sealed, answer):
    status, _ = ask(declare(Invoker(answer=answer)), request([[sealed, 2], [sealed, 3]]))
    assert status == 400


@pytest.mark.parametrize("index", [-1, 2])
def test_an_error_for_no_row_fails_the_query(sealed, index):
    endpoint = declare(Invoker(answer=[True, True], errors={index: "open"}))
    assert ask(endpoint, request([[sealed, 2], [sealed, 3]]))[0] == 400


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[
            (bool, 1),
            (bool, "true"),
            (int, True),
            (int, 2**63),
            (int, 1.5),
            (str, 1),
            (float, "1"),
            (Sealed, 1),
        ],
        *[(bytes, "*"), (Decimal, "x"), (dt.date, "tomorrow"), (dict, {"a": float("inf")})],
    ],
)
def test_an_output_of_another_type_than_declared_fails_the_query(sealed, kind, value):
    endpoint = declare(Invoker(answer=[value]), returns=kind)
    status, body = ask(endpoint, request([[sealed, 2]]))
    assert status == 400
    assert "returns" in body["errorMessage"]


@pytest.mark.parametrize(
    ("kind", "value", "wire"),
    [
        *[(int, 2**53, 2**53), (int, 2**53 + 1, "9007199254740993"), (float, 1, 1)],
        *[(Token, Token("t-1"), "t-1"), (dict, {"low": 1}, {"low": 1})],
        *[(Decimal, 2.5, "2.5"), (dt.date, "2024-02-29", "2024-02-29")],
    ],
)
def test_results_cross_as_bigquery_reads_them(sealed, kind, value, wire):
    endpoint = declare(Invoker(answer=[value]), returns=kind)
    assert ask(endpoint, request([[sealed, 2]])) == (200, {"replies": [wire]})


# --- repeated requests ---


def test_a_repeated_request_has_the_same_key_and_another_has_not(sealed):
    invoker = Invoker()
    endpoint, body = declare(invoker), request([[sealed, 2]])
    for sent in (body, body, {**body, "requestId": "2"}, {**body, "caller": "another job"}):
        ask(endpoint, sent)
    first, again, other, job = (call["key"] for call in invoker.calls)
    assert first == again
    assert len({first, other, job}) == 3
    assert "124ab1c" not in first


# --- very many rows ---


def test_very_many_rows_are_several_calls_in_order_and_each_has_a_key_of_its_own(sealed):
    invoker = Invoker(errors={3: "open"})
    rows = [[sealed, member] for member in range(25_000)]
    status, answer = ask(declare(invoker), request(rows))
    assert status == 200
    expected = [m % 2 == 0 for m in range(25_000)]
    for index in (3, 10_003, 20_003):
        expected[index] = None
    assert answer["replies"] == expected
    assert [len(call["ssn"]) for call in invoker.calls] == [10_000, 10_000, 5_000]
    again = Invoker(errors={3: "open"})
    ask(declare(again), request(rows))
    keys = [call["key"] for call in invoker.calls]
    assert keys == [call["key"] for call in again.calls]
    assert len(set(keys)) == 3


def test_long_values_are_several_calls_too():
    invoker = Invoker(answer=["ok", "ok"])
    endpoint = remote_function("f@prod", args={"x": str}, returns=str, client=invoker)
    status, _ = ask(endpoint, request([["x" * 3_000_000]] * 6))
    assert status == 200
    assert [len(call["x"]) for call in invoker.calls] == [2, 2, 2]


def test_an_outage_in_the_middle_is_no_answer_at_all(sealed):
    class Failing(Invoker):
        def invoke_batch(self, function, /, **columns):
            if self.calls:
                raise UnavailableError("the host did not answer")
            return super().invoke_batch(function, **columns)

    # Whether an error is retried is told by its type alone where it comes from our own package.
    Failing.invoke_batch.__globals__["__name__"], name = "cloister.client", __name__
    try:
        status, body = ask(declare(Failing()), request([[sealed, 1]] * 10_001))
    finally:
        Failing.invoke_batch.__globals__["__name__"] = name
    assert (status, body.keys()) == (503, {"errorMessage"})


# --- one endpoint, several functions ---


def test_the_context_of_the_sql_function_chooses(sealed):
    first, second = Invoker(), Invoker(answer=["m-1"])
    serve = remote_functions(
        declare(first, name="breached"),
        remote_function("masked@prod", args={"ssn": Sealed}, returns=str, client=second),
    )
    assert ask(serve, request([[sealed, 2]], userDefinedContext={"function": "breached"})) == (
        200,
        {"replies": [True]},
    )
    assert ask(serve, request([[sealed]], userDefinedContext={"function": "masked", "other": "x"})) == (
        200,
        {"replies": ["m-1"]},
    )
    assert [call["function"] for call in (*first.calls, *second.calls)] == [
        "ssn-breached@prod",
        "masked@prod",
    ]


@pytest.mark.parametrize(
    "context", [None, {}, {"function": "absent"}, {"function": ""}, {"Function": "masked"}]
)
def test_a_context_that_names_no_function_is_refused(sealed, context):
    invoker = Invoker()
    serve = remote_functions(declare(invoker, name="masked"))
    status, answer = ask(serve, request([[sealed, 2]], userDefinedContext=context))
    assert status == 400
    assert "user_defined_context" in answer["errorMessage"]
    assert invoker.calls == []


def test_an_endpoint_of_one_function_answers_sql_that_names_it_and_no_other(sealed):
    endpoint = declare(Invoker())
    for context, status in ({}, 200), ({"function": "ssn_breached"}, 200), ({"function": "masked"}, 400):
        assert ask(endpoint, request([[sealed, 2]], userDefinedContext=context))[0] == status


def test_two_functions_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="one name"):
        remote_functions(declare(Invoker()), declare(Invoker()))
    with pytest.raises(ConfigurationError):
        remote_functions()


# --- declared by annotations ---


def test_annotations_declare_the_same(sealed):
    invoker = Invoker()

    @remote_function("ssn-breached@prod", context=["member_id"], on_row_error="null", client=invoker)
    def breached(ssn: Sealed, member_id: int) -> bool:
        """Whether it is on the list."""

    assert ask(breached, request([[sealed, 2], [sealed, None]])) == (200, {"replies": [True, None]})
    assert breached.declaration.args == declare(invoker).declaration.args
    assert "('function', 'breached')" in breached.ddl("d.f", connection="us.c", endpoint="https://f.example")


def test_annotations_may_be_texts_and_name_sql_types():
    @remote_function("f@prod", client=Invoker())
    def f(
        a: "Annotated[dt.datetime, 'DATETIME']",  # noqa: UP037 (as modules that postpone them)
        b: dt.datetime,
        c: Annotated[Decimal, "BIGNUMERIC"],
        d: Decimal | None,
        e: bytes,
    ) -> dict: ...

    sql = f.ddl("d.f", connection="us.c", endpoint="https://f.example")
    assert "(a DATETIME, b TIMESTAMP, c BIGNUMERIC, d NUMERIC, e BYTES) RETURNS JSON" in sql


def _no_annotation(ssn): ...
def _no_result(ssn: Sealed): ...
def _default(ssn: Sealed = Sealed) -> bool: ...
def _keyword(*, ssn: Sealed) -> bool: ...
def _several(*ssn: Sealed) -> bool: ...
def _unknown(ssn: Nothing) -> bool: ...  # noqa: F821
def _body(ssn: Sealed) -> bool:
    return len(ssn) > 3


@pytest.mark.parametrize(
    "handler",
    [_no_annotation, _no_result, _default, _keyword, _several, _unknown, _body, 7, print],
    ids=lambda handler: getattr(handler, "__name__", "a number"),
)
def test_what_declares_nothing_that_can_work_is_refused(handler):
    with pytest.raises(ConfigurationError):
        remote_function("f@prod", client=Invoker())(handler)


def test_arguments_and_result_go_together():
    with pytest.raises(ConfigurationError, match="together"):
        remote_function("f@prod", args={"ssn": Sealed})
    with pytest.raises(ConfigurationError, match="together"):
        remote_function("f@prod", returns=bool)


# --- types ---


def test_an_argument_that_may_be_null_is_passed_on():
    invoker = Invoker(answer=["x", "y"])
    endpoint = remote_function("f@prod", args={"a": str | None, "b": int}, returns=str, client=invoker)
    assert ask(endpoint, request([[None, 1], ["v", None], ["v", 2]]))[1] == {"replies": ["x", None, "y"]}
    assert invoker.calls[0]["a"] == [None, "v"]


@pytest.mark.parametrize(
    ("kind", "wire", "sent"),
    [
        (int, "-9223372036854775808", -(2**63)),
        (float, 1, 1.0),
        (bytes, "AP8=", "AP8="),
        (Decimal, 3, "3"),
        (Decimal, 0.1, "0.1"),
        (Decimal, 1e-9, "0.000000001"),
        (Decimal, "12345678901234567890.123456789", "12345678901234567890.123456789"),
        ("BIGNUMERIC", "1." + "1" * 38, "1." + "1" * 38),
        (dt.date, "2024-02-29", "2024-02-29"),
        (dt.datetime, "2024-02-29T01:02:03.5Z", "2024-02-29T01:02:03.5Z"),
        ("DATETIME", "2024-02-29T01:02:03", "2024-02-29T01:02:03"),
        (dt.time, "01:02:03", "01:02:03"),
        (dict, {"a": [1, None]}, {"a": [1, None]}),
        ("json", [1, "x"], [1, "x"]),
    ],
    ids=repr,
)
def test_arguments_cross_as_the_function_reads_them(kind, wire, sent):
    invoker = Invoker(answer=["ok"])
    endpoint = remote_function("f@prod", args={"x": kind}, returns=str, client=invoker)
    assert ask(endpoint, request([[wire]])) == (200, {"replies": ["ok"]})
    assert invoker.calls[0]["x"] == [sent]
    assert type(invoker.calls[0]["x"][0]) is type(sent)


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        (int, 2**63),
        (int, "9223372036854775808"),
        (int, 1.0),
        (float, 10**400),
        (float, "NaN"),
        (float, True),
        (bytes, "AP8"),
        (bytes, "*"),
        (Decimal, "1e9"),
        (Decimal, 1e-10),
        (Decimal, "1" * 30),
        (Decimal, True),
        (dt.date, "2024-02-30"),
        (dt.date, "20240229"),
        (dt.datetime, "2024-02-29T01:02:03"),
        ("DATETIME", "2024-02-29T01:02:03Z"),
        (dt.time, "24:00:00"),
        (dict, {"a": "\ud800"}),
    ],
    ids=repr,
)
def test_what_is_not_of_its_type_is_a_malformed_row(kind, wire):
    invoker = Invoker()
    endpoint = remote_function("f@prod", args={"x": kind}, returns=str, on_row_error="null", client=invoker)
    assert ask(endpoint, request([[wire]])) == (200, {"replies": [None]})
    assert invoker.calls == []


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    kind=st.sampled_from(
        [
            *[Sealed, Token, str, int, float, bool, bytes, Decimal, dt.date, dt.datetime, dt.time, dict],
            *["BIGNUMERIC", "DATETIME"],
        ]
    ),
)
def test_any_value_of_any_type_is_answered(value, kind):
    invoker = Invoker(answer=[True])
    endpoint = remote_function("f@prod", args={"x": kind}, returns=bool, on_row_error="null", client=invoker)
    status, answer = ask(endpoint, json.dumps(request([[value]]), ensure_ascii=True).encode())
    assert (status, len(answer["replies"])) == (200, 1)
    assert (answer["replies"] == [True]) == bool(invoker.calls)
    json.dumps(invoker.calls, allow_nan=False).encode()


# --- requests that BigQuery would not send ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 100_000,
        {"calls": [["x", 1]]},
        {"requestId": "1"},
        {"requestId": "", "calls": []},
        {"requestId": 7, "calls": []},
        {"requestId": "x" * 2000, "calls": []},
        {"requestId": "\ud800", "calls": []},
        {"requestId": "1", "caller": 7, "calls": []},
        {"requestId": "1", "calls": "ab"},
        {"requestId": "1", "calls": [["x"]]},
        {"requestId": "1", "calls": [["x", 1, 2]]},
        {"requestId": "1", "calls": ["ab"]},
        {"requestId": "1", "calls": [[]] * 250_001},
        b'{"requestId": "1", "requestId": "2", "calls": []}',
        b'{"requestId": "1", "calls": [[NaN, 1]]}',
        {"requestId": "1", "calls": [], "userDefinedContext": ["function"]},
        {"requestId": "1", "calls": [], "userDefinedContext": {"function": 7}},
        {"requestId": "1", "calls": [], "userDefinedContext": {"function": "another"}},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_malformed_request_is_refused_and_nothing_is_called(body):
    invoker = Invoker()
    status, answer = ask(declare(invoker), body)
    assert status == 400
    assert answer["errorMessage"]
    assert invoker.calls == []


def test_a_body_over_the_limit_is_not_read_to_its_end():
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size=-1):
            assert size > 0
            Endless.taken += size
            return b" " * size

    _, status, _ = declare(Invoker())(types.SimpleNamespace(stream=Endless()))
    assert status == 400
    assert Endless.taken <= 33 * 1024 * 1024


@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["requestId", "calls", "caller", "userDefinedContext", "function"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
    )
)
def test_any_body_is_answered_as_bigquery_expects(body):
    status, answer = ask(declare(Invoker()), body)
    assert (status, answer.keys()) in ((200, {"replies"}), (400, {"errorMessage"}))
    if status == 200:
        assert len(answer["replies"]) == len(body["calls"])


# --- the declaration ---


@pytest.mark.parametrize(
    "changes",
    [
        {"args": {}},
        {"args": {"ssn": Sealed, "context": str}},
        {"args": {"ssn": Sealed, "idempotency_key": str}},
        {"args": {"SSN": Sealed, "member_id": int}},
        {"args": {"ssn; DROP TABLE x": Sealed, "member_id": int}},
        {"args": {"ssn": list, "member_id": int}},
        {"args": {"ssn": Sealed, "member_id": float}},
        {"context": ["ssn"]},
        {"context": ["account"]},
        {"returns": set},
        {"returns": list[str]},
        {"on_row_error": "ignore"},
    ],
    ids=repr,
)
def test_a_declaration_that_cannot_work_is_refused(changes):
    with pytest.raises(ConfigurationError):
        declare(Invoker(), **changes)


def test_the_ddl_declares_the_same_arguments():
    sql = declare(Invoker()).ddl(
        "proj.clinic.ssn_breached", connection="us.cloister", endpoint="https://f-abc.a.run.app"
    )
    assert sql == (
        "CREATE OR REPLACE FUNCTION `proj.clinic.ssn_breached`(ssn STRING, member_id INT64) RETURNS BOOL\n"
        "REMOTE WITH CONNECTION `us.cloister`\n"
        "OPTIONS (\n"
        "  endpoint = 'https://f-abc.a.run.app',\n"
        "  max_batching_rows = 10000,\n"
        "  user_defined_context = [('function', 'ssn_breached')]\n"
        ");"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"function": "ssn_breached"},
        {"function": "a.b.c.d"},
        {"function": "clinic.f`(x STRING) RETURNS STRING AS (x); --"},
        {"connection": "cloister"},
        {"connection": "us.c`"},
        {"endpoint": "http://f.example"},
        {"endpoint": "https://f.example' , x = '"},
        {"endpoint": "https://"},
        {"endpoint": "ftp://f.example"},
        {"max_batching_rows": 0},
        {"max_batching_rows": True},
    ],
    ids=repr,
)
def test_ddl_takes_no_name_that_says_more(changes):
    good = {"function": "clinic.f", "connection": "us.c", "endpoint": "https://f.example"}
    arguments = {**good, **changes}
    with pytest.raises(ConfigurationError):
        declare(Invoker()).ddl(arguments.pop("function"), **arguments)


SOURCE = """
from cloister_gcp import Sealed, remote_function
ssn_breached = remote_function(
    "ssn-breached@prod", args={"ssn": Sealed}, returns=bool, on_row_error="null", client=object()
)
"""


def test_functions_framework_takes_it_as_a_target(tmp_path: Path):
    (tmp_path / "main.py").write_text(SOURCE)
    app = create_app("ssn_breached", str(tmp_path / "main.py"))
    answer = app.test_client().post("/", json=request([["not sealed"]]))
    assert answer.status_code == 200
    assert answer.get_json() == {"replies": [None]}
    assert answer.mimetype == "application/json"
