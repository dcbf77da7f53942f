"""What an executor does to Arrow batches, without Spark."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from cloister.columns import ROWS, Patience
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    HandlerError,
    UnavailableError,
)
from cloister.mask import MASKED
from cloister_spark import steps
from cloister_spark.connection import Connection
from support import require

require.module("pyarrow")
import pyarrow as pa  # noqa: E402 (after it was required)

from cloister_spark import batches  # noqa: E402 (as above)
from cloister_spark.batches import Work  # noqa: E402 (as above)

SSN = "123-45-6789"


class Client:
    """Turns text round, refuses what it is told to, keeps what it was asked."""

    def __init__(self, errors=None, failures=()):
        self.errors, self.failures, self.asked = errors or {}, list(failures), []

    def call(self, op, payload, *, idempotency_key=None, purpose=None):
        self.asked.append((op, payload, idempotency_key, purpose))
        if self.failures:
            raise self.failures.pop(0)
        given = payload.get("values") or payload.get("tokens") or [item["value"] for item in payload["items"]]
        turned = [value[::-1] for value in given]
        return {"tokens": turned, "values": turned, "errors": self.errors}

    def seal_many(self, values, *, key, contexts=None):
        self.asked.append(("seal", list(values), key, contexts))
        return [f"<{value}>" for value in values]

    def invoke_batch(self, function, /, *, context=None, idempotency_key=None, **inputs):
        self.asked.append((function, inputs, context, idempotency_key))
        return Batch([len(value) > 3 for value in next(iter(inputs.values()))])


class Batch:
    def __init__(self, values):
        self.values, self.errors = values, {}


class Meter:
    def __init__(self):
        self.counts = Counter()

    def add(self, **counts):
        self.counts.update(counts)


class Held(Connection):
    """A connection whose client is there already."""

    def client(self, *, told=None):
        told()
        return CLIENTS[dict(self.settings)["url"]]


CLIENTS: dict[str, Client] = {}


@pytest.fixture
def client(request):
    CLIENTS[request.node.name] = client = Client()
    yield client
    del CLIENTS[request.node.name]


@pytest.fixture
def worked(request, client):
    def worked(step, *given, into="out", error="err", returns="string", run="r", seconds=60.0):
        worked.meter = Meter()
        work = Work(
            step=step,
            into=into,
            type=returns,
            error=error,
            connection=Held((("url", request.node.name),)),
            patience=Patience(seconds=seconds, sleep=lambda _: None),
            run=run,
            meter=worked.meter,
        )
        return list(work(iter(given)))

    return worked


def batch(**columns):
    return pa.RecordBatch.from_pydict(columns)


TOKENIZE = steps.Tokenize(column="ssn", policy="ssn")


def test_a_column_is_made_and_the_others_stay(worked):
    (out,) = worked(TOKENIZE, batch(id=[1, 2, 3], ssn=["ab", None, "cd"]))
    assert out.to_pydict() == {
        "id": [1, 2, 3],
        "ssn": ["ab", None, "cd"],
        "out": ["ba", None, "dc"],
        "err": [None, None, None],
    }
    assert worked.meter.counts == Counter(rows=3, calls=1, attested=1)


def test_a_column_takes_the_place_of_the_plain_one(worked):
    (out,) = worked(TOKENIZE, batch(ssn=["ab"], id=[1]), into="ssn")
    assert out.to_pydict() == {"ssn": ["ba"], "id": [1], "err": [None]}


def test_a_row_that_fails_has_a_code_and_no_value(worked, client):
    client.errors = {"1": "open"}
    (out,) = worked(TOKENIZE, batch(ssn=["ab", "cd", "ef"]))
    assert out.to_pydict()["out"] == ["ba", None, "fe"]
    assert out.to_pydict()["err"] == [None, "open", None]
    assert worked.meter.counts["failed"] == 1


def test_the_first_error_of_a_row_stays_through_the_steps_that_follow(worked, client):
    client.errors = {"1": "open"}
    (first,) = worked(TOKENIZE, batch(ssn=["ab", "cd"]), into="ssn")
    client.errors = {}
    (second,) = worked(TOKENIZE, first, into="ssn")
    assert second.to_pydict() == {"ssn": ["ab", None], "err": [None, "open"]}


def test_without_an_error_column_a_row_that_fails_fails_the_job_without_its_value(worked, client):
    client.errors = {"0": "open"}
    with pytest.raises(FunctionError, match=r"1 of 2 rows failed \(open: 1\)") as caught:
        worked(TOKENIZE, batch(ssn=[SSN, SSN]), error=None)
    assert SSN not in str(caught.value)


def test_a_large_batch_is_cut_into_calls_of_at_most_what_the_host_takes(worked, client):
    rows = 2 * ROWS + 5
    out = worked(TOKENIZE, batch(ssn=[f"n{n}" for n in range(rows)], id=list(range(rows))))
    assert all(len(payload["values"]) <= ROWS for _, payload, *_ in client.asked)
    joined = pa.Table.from_batches(out)
    assert joined["id"].to_pylist() == list(range(rows))
    assert joined["out"].to_pylist() == [f"n{n}"[::-1] for n in range(rows)]


def test_a_batch_of_long_values_is_cut_by_size(worked, client, monkeypatch):
    monkeypatch.setattr(batches, "MAX_BYTES", 4000)
    out = worked(steps.Seal(column="note", key="k"), batch(note=["x" * 1000] * 10))
    assert sum(part.num_rows for part in out) == 10
    assert len(client.asked) > 2
    assert all(len(values) * 1000 <= 4000 for _, values, *_ in client.asked)


def test_one_value_that_is_longer_is_sent_alone(worked, client, monkeypatch):
    monkeypatch.setattr(batches, "MAX_BYTES", 10)
    assert len(worked(steps.Seal(column="note", key="k"), batch(note=["x" * 1000] * 2))) == 2
    assert len(client.asked) == 2


def test_rows_are_read_only_when_those_before_are_answered(request, client):
    CLIENTS["lazy"] = client
    read = []

    def source():
        for number in range(3):
            read.append(number)
            yield batch(ssn=["ab"])

    work = Work(
        step=TOKENIZE,
        into="out",
        type="string",
        error="err",
        connection=Held((("url", "lazy"),)),
        patience=Patience(),
        run="r",
        meter=Meter(),
    )
    out = work(source())
    assert not read
    next(out)
    assert read == [0]
    assert len(client.asked) == 1


def test_an_outage_is_waited_out_under_the_same_key(worked, client):
    client.failures = [UnavailableError("away"), UnavailableError("away")]
    (out,) = worked(TOKENIZE, batch(ssn=["ab"]))
    assert out.to_pydict()["out"] == ["ba"]
    assert len({key for *_, key, _ in client.asked}) == 1
    assert worked.meter.counts["waits"] == 2
    assert worked.meter.counts["calls"] == 1


def test_the_same_batch_has_the_same_key_in_a_run_and_another_in_another(worked, client):
    worked(TOKENIZE, batch(ssn=["ab"], id=[1]))
    worked(TOKENIZE, batch(ssn=["ab"], id=[2]))
    worked(TOKENIZE, batch(ssn=["ab"], id=[1]), run="another")
    worked(TOKENIZE, batch(ssn=["cd"], id=[1]))
    worked(steps.Tokenize(column="ssn", policy="other"), batch(ssn=["ab"]))
    keys = [key for *_, key, _ in client.asked]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (DeniedError(f"made up {SSN}"), HandlerError),
        (ValueError(f"bad value {SSN}"), HandlerError),
        (KeyError(SSN), HandlerError),
    ],
    ids=["an error of ours that somebody else raised", "a library's error", "a key"],
)
def test_nothing_that_is_raised_carries_data(worked, client, raised, told):
    client.failures = [raised]
    with pytest.raises(CloisterError) as caught:
        worked(TOKENIZE, batch(ssn=[SSN]))
    assert type(caught.value) is told
    assert SSN not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_result_of_another_type_is_refused_without_quoting_it(worked):
    with pytest.raises(ConfigurationError, match="returns") as caught:
        worked(TOKENIZE, batch(ssn=[SSN]), returns="bigint")
    assert SSN[::-1] not in str(caught.value)


def test_values_are_sealed_to_their_rows(worked, client):
    step = steps.Seal(column="ssn", key="ssn", context=("id", "live"))
    given = batch(
        ssn=["a", "b", None, "d", "e"], id=[1, None, 3, 4, 5], live=[True, True, True, False, False]
    )
    (out,) = worked(step, given, into="ssn")
    assert out.to_pydict()["ssn"] == ["<a>", None, None, "<d>", "<e>"]
    assert out.to_pydict()["err"] == [None, "configuration", None, None, None]
    assert client.asked[0][3] == [
        {"id": "1", "live": "true"},
        {"id": "4", "live": "false"},
        {"id": "5", "live": "false"},
    ]


@pytest.mark.parametrize("context", [1.5, "x" * 1025], ids=["no one spelling", "too long"])
@pytest.mark.parametrize("name", ["seal", "rewrap", "invoke"])
def test_a_context_that_cannot_be_used_is_an_error_of_its_row(worked, client, context, name):
    step = {
        "seal": steps.Seal(column="ssn", key="k", context=("id",)),
        "rewrap": steps.Rewrap(column="ssn", key="k", context=("id",)),
        "invoke": steps.Invoke(function="f@prod", inputs=(("n", "ssn"),), context=(("id", "id"),)),
    }[name]
    (out,) = worked(
        step, batch(ssn=["ab"], id=[context]), returns="boolean" if name == "invoke" else "string"
    )
    assert out.to_pydict()["out"] == [None]
    assert out.to_pydict()["err"] == ["configuration"]
    assert all("ab" not in str(asked) for asked in client.asked)


def test_a_function_gets_columns_by_its_own_names(worked, client):
    step = steps.Invoke(function="f@prod", inputs=(("text", "ssn"),), context=(("member", "id"),))
    (out,) = worked(step, batch(ssn=["ab", "abcd", None], id=[1, 2, 3]), returns="boolean")
    assert out.to_pydict()["out"] == [False, True, None]
    assert client.asked[0][:3] == ("f@prod", {"text": ["ab", "abcd"]}, {"member": ["1", "2"]})


def test_a_mask_needs_no_host(worked, client):
    (out,) = worked(steps.Mask(column="ssn", view=MASKED("***-**-{last:4}")), batch(ssn=[SSN, None]))
    assert out.to_pydict()["out"] == ["***-**-6789", None]
    assert not client.asked
    assert worked.meter.counts == Counter(rows=2)


@pytest.mark.parametrize(
    "step",
    [
        steps.Show(column="ssn", policy="p", key_version=2, purpose="support"),
        steps.Retokenize(column="ssn", policy="p", key_version=2),
    ],
    ids=lambda step: type(step).__name__,
)
def test_tokens_are_of_the_version_that_is_named(worked, client, step):
    (out,) = worked(step, batch(ssn=["ab"]))
    assert out.to_pydict()["out"] == ["ba"]
    assert client.asked[0][1]["key_version"] == 2


def test_an_empty_batch_stays_empty(worked, client):
    (out,) = worked(TOKENIZE, pa.RecordBatch.from_pydict({"ssn": pa.array([], pa.string())}))
    assert out.num_rows == 0
    assert out.schema.names == ["ssn", "out", "err"]
    assert not client.asked


# --- the connection ---


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("# a policy")
    return path


def test_what_travels_is_names_and_the_policys_text(policy):
    connection = Connection.of({"url": "https://h", "tenant": "acme", "policy": policy, "api_key_file": "/k"})
    assert connection.settings == (("api_key_file", "/k"), ("tenant", "acme"), ("url", "https://h"))
    assert connection.policy == "# a policy"
    assert pickle.loads(pickle.dumps(connection)) == connection


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key_file": "clk_abc_def"},
        {"url": "https://clk_abc_def@h"},
        {"api_key": "x"},
        {"policy": "/absent"},
    ],
    ids=["a key for a file", "a key in a URL", "no such setting", "no such policy"],
)
def test_a_setting_that_must_not_travel_or_cannot_be_used_is_refused(settings):
    with pytest.raises(ConfigurationError) as caught:
        Connection.of(settings)
    assert "abc_def" not in str(caught.value)


def test_a_process_makes_one_client_and_a_fork_another(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(Connection, "_new", lambda self: made.append(self) or object())
    connection, same = (Connection((("url", str(tmp_path)),)) for _ in range(2))
    told = []
    client = connection.client(told=lambda: told.append(1))
    assert same.client() is client
    assert len(made) == len(told) == 1
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert connection.client() is not client
