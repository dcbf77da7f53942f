"""Transfers: what counts as an item, what is remembered, what is sent, and what happens on failures."""

from __future__ import annotations

import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.envelope import seal_to
from cloister.errors import (
    AppraisalError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    OpenError,
    UnavailableError,
)
from cloister.jose import generate_key
from cloister.receipts import Receipt
from cloister.reply import Reply
from cloister.transfer import Fields, Item, RecordItems, State, StoredItems, Transfer, Unusable
from cloister.transfer.sinks import LineSink, StoreSink

KEY = generate_key("HPKE-7-KE")
FIELDS = Fields(inputs={"pin": "pin"}, context={"account": "account"}, id="transfer")
ABOUT = {"function": "f@prod"}


def sealed(text="x"):
    return seal_to(text, KEY.public(), kid="pins.1")


class Function:
    """A confidential function with effects, as the host keeps them: one for each idempotency key."""

    def __init__(self):
        self.effects: dict[str, dict] = {}
        self.calls = []
        self.errors = {}
        self.lock = threading.Lock()
        self.value = lambda inputs: True

    def invoke(self, function, /, *, context=None, idempotency_key=None, purpose=None, **inputs):
        with self.lock:
            self.calls.append(inputs)
            for error in self.errors.get(inputs.get("pin"), [])[:1]:
                self.errors[inputs["pin"]].pop(0)
                raise error
            self.effects.setdefault(idempotency_key, {"function": function, "context": context, **inputs})
            receipt = Receipt(id=f"r-{len(self.effects)}", token="a.b.c")
            return Reply(value=self.value(inputs), receipt=receipt, delivery_id="d")


@pytest.fixture
def function():
    return Function()


@pytest.fixture
def source(tmp_path):
    """Writes records; gives them as items."""

    def write(records, fields=FIELDS):
        path = tmp_path / "items.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return RecordItems(path, fields)

    return write


def records(count):
    return [{"transfer": f"t-{n}", "account": f"a-{n}", "pin": f"p-{n}"} for n in range(count)]


def run(items, function, tmp_path, *, about=ABOUT, **options):
    with State(tmp_path / "state", about) as state:
        transfer = Transfer(items, "f@prod", function, pause=lambda _seconds: None, **options)
        return transfer.run(state)


# --- items ---


def test_records_become_items(source):
    (item,) = source([{"transfer": 7, "account": "a", "pin": "p", "more": 1}])
    assert (item.id, item.place) == ("7", "1")
    assert (item.inputs, item.context) == ({"pin": "p"}, {"account": "a"})
    assert "p" not in repr(item).replace("place", "").replace("input", "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no json", "no JSON"),
        ("[]", "no JSON object"),
        ('{"transfer": "t", "account": "a"}', "no member 'pin'"),
        ('{"transfer": "t", "account": 7, "pin": "p"}', "no text"),
        ('{"transfer": true, "account": "a", "pin": "p"}', "name it"),
        ('{"transfer": "", "account": "a", "pin": "p"}', "name it"),
        ('{"transfer": "t", "account": "a", "pin": 1e999}', "exactly"),
    ],
)
def test_what_is_no_item_is_told_with_its_place_and_without_its_content(tmp_path, line, reason):
    (tmp_path / "items").write_text("\n" + line + "\n")
    (found,) = RecordItems(tmp_path / "items", FIELDS)
    assert isinstance(found, Unusable)
    assert found.place == "2"
    assert reason in found.reason


@given(st.binary(max_size=200))
def test_any_bytes_are_items_or_unusable(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "items"
    path.write_bytes(raw)
    assert all(isinstance(found, Item | Unusable) for found in RecordItems(path, FIELDS))


def test_a_line_without_end_is_passed_over(tmp_path, monkeypatch):
    from cloister.transfer import items

    monkeypatch.setattr(items, "MAX_LINE_BYTES", 100)
    (tmp_path / "items").write_text("x" * 1000 + "\n" + json.dumps(records(1)[0]) + "\n")
    first, second = RecordItems(tmp_path / "items", FIELDS)
    assert isinstance(first, Unusable)
    assert isinstance(second, Item)
    assert second.place == "2"


def test_without_an_id_the_whole_content_names_an_item(source):
    fields = Fields(inputs={"pin": "pin"})
    one, same, other = source([{"pin": "1"}, {"pin": "1", "note": "x"}, {"pin": "2"}], fields)
    assert one.id == same.id != other.id


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        RecordItems(tmp_path / "absent", FIELDS)


class Bucket:
    def __init__(self, **objects):
        self.objects = objects

    def names(self, prefix):
        return iter(sorted(name for name in self.objects if name.startswith(prefix)))

    def get(self, name):
        if self.objects[name] is None:
            raise OpenError("this is not a sealed value")
        return self.objects[name]

    def put_new(self, name, value):
        return self.objects.setdefault(name, value) is value


def test_objects_of_a_bucket_become_items_named_by_what_follows_the_prefix():
    value = sealed()
    bucket = Bucket(**{"in/a": value, "in/b": None, "out/c": sealed()})
    fields = Fields(inputs={"history": "value"}, context={"customer": "name"}, id="name")
    first, second = StoredItems(bucket, "in/", fields)
    assert (first.id, first.inputs, first.context) == ("a", {"history": str(value)}, {"customer": "a"})
    assert (second.place, second.reason) == ("b", "this is not a sealed value")


# --- runs ---


def test_each_item_is_sent_once_with_its_context(source, function, tmp_path):
    report = run(source(records(20)), function, tmp_path)
    assert (report.done, report.failed, report.stopped) == (20, 0, None)
    assert sorted(effect["pin"] for effect in function.effects.values()) == sorted(
        f"p-{n}" for n in range(20)
    )
    assert all(
        effect["context"] == {"account": effect["pin"].replace("p", "a")}
        for effect in function.effects.values()
    )
    assert all(len(key) == 43 for key in function.effects)


def test_a_second_run_sends_nothing(source, function, tmp_path):
    run(source(records(5)), function, tmp_path)
    report = run(source(records(5)), function, tmp_path)
    assert (report.done, report.before) == (0, 5)
    assert len(function.calls) == 5


def test_what_was_added_is_sent_and_nothing_else(source, function, tmp_path):
    run(source(records(3)), function, tmp_path)
    report = run(source(records(5)), function, tmp_path)
    assert (report.done, report.before) == (2, 3)


def test_an_item_that_stands_twice_is_sent_once(source, function, tmp_path):
    report = run(source([*records(2), *records(2)]), function, tmp_path)
    assert (report.done, report.before) == (2, 2)
    assert len(function.calls) == 2


def test_another_item_of_the_same_id_is_not_passed_over_in_silence(source, function, tmp_path):
    report = run(source([*records(1), {**records(1)[0], "pin": "other"}]), function, tmp_path)
    assert (report.done, report.failed) == (1, 1)
    assert (report.failures[0].place, report.failures[0].code) == ("2", "changed")
    again = run(source([{**records(1)[0], "pin": "other"}]), function, tmp_path)
    assert (again.done, again.failures[0].code) == (0, "changed")


def test_a_refused_item_keeps_no_other_from_being_sent_and_is_tried_again(source, function, tmp_path):
    function.errors["p-1"] = [OpenError("the value does not open")]
    function.errors["p-2"] = [FunctionError("the function failed")]
    report = run(source(records(4)), function, tmp_path)
    assert (report.done, report.failed, report.stopped) == (2, 2, None)
    assert {(f.place, f.code) for f in report.failures} == {("2", "open"), ("3", "function")}
    again = run(source(records(4)), function, tmp_path)
    assert (again.done, again.before, again.failed) == (2, 2, 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeniedError("no grant"), "denied"),
        (AppraisalError("claim"), "appraisal"),
        (UnavailableError("x", retryable=False), "unavailable"),
    ],
    ids=["denied", "appraisal", "unavailable"],
)
def test_what_every_item_would_meet_ends_the_run(source, function, tmp_path, error, code):
    function.errors["p-0"] = [error]
    report = run(source(records(50)), function, tmp_path, concurrency=1)
    assert report.stopped == code
    assert len(function.calls) < 50
    again = run(source(records(50)), function, tmp_path)
    assert again.stopped is None
    assert len(function.effects) == 50


def test_an_answer_that_does_not_come_is_asked_for_again_under_the_same_key(source, function, tmp_path):
    function.errors["p-0"] = [UnavailableError("no answer"), UnavailableError("no answer")]
    report = run(source(records(1)), function, tmp_path)
    assert (report.done, report.failed) == (1, 0)
    assert len(function.calls) == 3
    assert len(function.effects) == 1


def test_an_interruption_ends_what_is_under_way_and_sends_no_more(source, function, tmp_path):
    invoke = function.invoke

    def stopping(*args, **kwargs):
        if len(function.calls) == 4:
            transfer.stop()
        return invoke(*args, **kwargs)

    function.invoke = stopping
    with State(tmp_path / "state", ABOUT) as state:
        transfer = Transfer(source(records(30)), "f@prod", function, concurrency=1)
        report = transfer.run(state)
    assert (report.done, report.stopped) == (5, "interrupted")
    again = run(source(records(30)), function, tmp_path)
    assert (again.done, again.before) == (25, 5)


def test_as_many_calls_are_under_way_as_was_said(source, function, tmp_path):
    together = threading.Barrier(4)
    function.value = lambda _inputs: None
    invoke = function.invoke

    def meeting(*args, **kwargs):
        together.wait(timeout=60)  # passes when four are here
        return invoke(*args, **kwargs)

    function.invoke = meeting
    assert run(source(records(8)), function, tmp_path, concurrency=4).done == 8


def test_a_dry_run_sends_nothing_and_makes_nothing(source, function, tmp_path):
    items = source([*records(3), {"no": "item"}])
    before = sorted(path.name for path in tmp_path.iterdir())
    report = Transfer(items, "f@prod", function).plan(None)
    assert (report.pending, report.failed, report.done) == (3, 1, 0)
    assert function.calls == []
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_dry_run_knows_what_was_done_and_leaves_the_state_as_it_is(source, function, tmp_path):
    run(source(records(2)), function, tmp_path)
    path = tmp_path / "state"
    path.write_bytes(path.read_bytes() + b'{"key": "torn')
    before = path.read_bytes()
    with State(path, ABOUT, writable=False) as state:
        report = Transfer(source(records(5)), "f@prod", function).plan(state)
    assert (report.pending, report.before) == (3, 2)
    assert path.read_bytes() == before


# --- crashes ---


def test_what_was_sent_and_not_answered_is_sent_again_under_its_key(source, function, tmp_path):
    run(source(records(3)), function, tmp_path)
    path = tmp_path / "state"
    lines = path.read_text().splitlines(keepends=True)
    # As after a crash: two answers were not noted, and the last line was cut short.
    done = [line for line in lines if '"done"' in line]
    kept = [line for line in lines if line not in done[1:]]
    path.write_text("".join(kept) + done[2][:20])
    report = run(source(records(3)), function, tmp_path)
    assert (report.done, report.before) == (2, 1)
    assert len(function.effects) == 3


def test_what_may_have_been_done_too_long_ago_is_not_repeated_by_itself(source, function, tmp_path):
    now = [1_000_000.0]
    items = source(records(1))
    function.errors["p-0"] = [UnavailableError("cut off", retryable=False)]
    run(items, function, tmp_path, clock=lambda: now[0])
    now[0] += 23 * 3600 + 1
    report = run(items, function, tmp_path, clock=lambda: now[0])
    assert (report.done, report.unknown, report.failures[0].code) == (0, 1, "unknown")
    assert len(function.calls) == 1
    forced = run(items, function, tmp_path, clock=lambda: now[0], repeat_unknown=True)
    assert (forced.done, forced.unknown) == (1, 0)


def test_the_first_sending_counts_not_the_last(source, function, tmp_path):
    now = [1_000_000.0]
    items = source(records(1))
    for _ in range(3):
        function.errors["p-0"] = [UnavailableError("cut off", retryable=False)]
        run(items, function, tmp_path, clock=lambda: now[0])
        now[0] += 10 * 3600
    assert len(function.calls) == 3
    assert run(items, function, tmp_path, clock=lambda: now[0]).unknown == 1


# --- state ---


def test_the_state_holds_no_value_and_no_name_and_is_its_owners(source, function, tmp_path):
    run(source(records(3)), function, tmp_path)
    path = tmp_path / "state"
    text = path.read_text()
    assert not any(word in text for record in records(3) for word in record.values())
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_state_of_another_transfer_is_refused(source, function, tmp_path):
    run(source(records(1)), function, tmp_path)
    with pytest.raises(ConfigurationError, match="another transfer"):
        run(source(records(1)), function, tmp_path, about={"function": "g@prod"})


@pytest.mark.parametrize("content", [b"hello\n", b"hello", b"{}\n", b"\xff\n", b'{"transfer": 9}\n'])
def test_a_file_that_is_no_state_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        State(path, ABOUT)
    assert path.read_bytes() == content


def test_a_damaged_state_is_refused(source, function, tmp_path):
    run(source(records(2)), function, tmp_path)
    path = tmp_path / "state"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{}\n", *lines[1:]]))
    with pytest.raises(ConfigurationError, match="damaged"):
        State(path, ABOUT)


def test_a_state_that_was_cut_short_at_its_first_line_begins_anew(tmp_path):
    path = tmp_path / "state"
    State(path, ABOUT).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    State(path, ABOUT).close()
    assert path.read_bytes() == whole


def test_two_runs_at_once_are_one_too_many(tmp_path):
    with State(tmp_path / "state", ABOUT), pytest.raises(ConfigurationError, match="at work"):
        State(tmp_path / "state", ABOUT)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("")
    (tmp_path / "state").symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        State(tmp_path / "state", ABOUT)


def test_what_cannot_be_noted_is_not_sent(source, function, tmp_path, monkeypatch):
    items = source(records(1))
    with State(tmp_path / "state", ABOUT) as state:

        def full(_descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fdatasync", full)
        with pytest.raises(ConfigurationError, match="cannot be written"):
            Transfer(items, "f@prod", function).run(state)
    assert function.calls == []


# --- replies ---


def test_replies_are_lines_each_once_over_crashes(source, function, tmp_path):
    out = tmp_path / "out.jsonl"
    with LineSink(out) as sink:
        run(source(records(2)), function, tmp_path, sink=sink)
    out.write_bytes(out.read_bytes() + b'{"key": "torn')
    (tmp_path / "state").unlink()  # as if nothing had been noted
    with LineSink(out) as sink:
        report = run(source(records(3)), function, tmp_path, sink=sink)
    assert report.done == 3
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == ["t-0", "t-1", "t-2"]
    assert all(line["value"] is True and line["delivery"] == "d" for line in lines)
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_file_with_something_else_gets_no_replies(tmp_path):
    (tmp_path / "out").write_text("my diary\n")
    with pytest.raises(ConfigurationError, match="something else"):
        LineSink(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "my diary\n"


def test_sealed_replies_are_objects_and_none_is_replaced(source, function, tmp_path):
    values = {f"p-{n}": sealed(str(n)) for n in range(3)}
    function.value = lambda inputs: values[inputs["pin"]]
    bucket = Bucket(**{"out/t-1": values["p-1"]})  # written before a crash
    report = run(source(records(2)), function, tmp_path, sink=StoreSink(bucket, "out/"))
    assert (report.done, report.failed) == (2, 0)
    assert bucket.objects == {"out/t-0": values["p-0"], "out/t-1": values["p-1"]}
    bucket.objects["out/t-2"] = sealed("other")
    report = run(source(records(3)), function, tmp_path, sink=StoreSink(bucket, "out/"))
    assert (report.stopped, report.failures[0].code) == ("output", "output")


def test_a_reply_that_could_not_be_kept_is_known_to_have_been_done(source, function, tmp_path):
    report = run(source(records(1)), function, tmp_path, sink=StoreSink(Bucket(), ""))
    assert report.stopped == "output"
    with State(tmp_path / "state", ABOUT) as state:
        (known,) = state._items.values()
    assert known.status == "sent"
