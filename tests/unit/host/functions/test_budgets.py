"""Answer budgets: what a caller cannot do to find a value by asking often enough."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from cloister.errors import DeniedError, FunctionError, LimitError, UnavailableError
from cloister_host.store import TamperedError
from support.workbench import PlainAct, Workbench

ABOVE = """
from typing import Annotated
from cloister.function import boolean, budget, function, sealed

@function("above", output=boolean(),
          budget=budget(subject="person", per_subject=3, per_principal=5, period="day"))
def above(salary: Annotated[int, sealed("salaries", context=["person"])], threshold: int) -> bool:
    if threshold < 0:
        raise ValueError
    return salary > threshold
"""

BREACHED = """
from typing import Annotated
from cloister.function import boolean, budget, function, sealed

@function("breached", batch=True, output=boolean(),
          budget=budget(subject="member", per_subject=2, per_principal=100, period="hour"))
def breached(ssn: Annotated[list[str], sealed("ssn", context=["member"])]) -> list[bool]:
    return [value.startswith("078") for value in ssn]
"""


@pytest.fixture
def above(bench: Workbench) -> Workbench:
    bench.key("salaries")
    bench.deploy(ABOVE)
    return bench


def ask(bench: Workbench, person: str = "ann", threshold: int = 50, *, caller: str = "lambda") -> Any:
    salary = bench.seal("salaries", 72, person=person)
    payload = {
        "function": "above@prod",
        "inputs": {"salary": salary, "threshold": threshold},
        "context": {"person": person},
    }
    return bench.call("function.invoke", payload, caller=bench.caller(caller, "faas"))["value"]


def test_a_binary_search_over_one_subject_ends(above: Workbench) -> None:
    assert [ask(above, threshold=threshold) for threshold in (64, 96, 80)] == [True, False, False]
    with pytest.raises(LimitError, match="3 answers about a subject a day"):
        ask(above, threshold=72)


def test_another_principal_has_no_more_answers_about_the_same_subject(above: Workbench) -> None:
    above.call("principal.create", {"principal": "other", "kind": "faas"})
    above.grant("other", "invoke", "function/above")
    for _ in range(3):
        ask(above)
    with pytest.raises(LimitError):
        ask(above, caller="other")
    assert ask(above, "bob", caller="other") is True


def test_a_principal_does_not_walk_through_all_subjects(above: Workbench) -> None:
    for number in range(5):
        ask(above, f"person-{number}")
    with pytest.raises(LimitError, match="gives a principal 5 answers a day"):
        ask(above, "one-more")


def test_a_new_period_begins_anew_and_a_clock_set_back_does_not(above: Workbench) -> None:
    for _ in range(3):
        ask(above)
    above.clock.now -= 86_400
    with pytest.raises(LimitError):
        ask(above)
    above.clock.now += 2 * 86_400
    assert ask(above) is True


def test_a_failure_is_an_answer_too(above: Workbench) -> None:
    for _ in range(3):
        with pytest.raises(FunctionError):
            ask(above, threshold=-1)
    with pytest.raises(LimitError):
        ask(above)


def test_another_digest_of_the_function_does_not_begin_anew(above: Workbench) -> None:
    for _ in range(3):
        ask(above)
    above.deploy(ABOVE + "# another digest\n")
    with pytest.raises(LimitError):
        ask(above)


def test_a_call_that_never_ran_is_given_back(above: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(above)
    pool = above.parts.pool
    with monkeypatch.context() as patch:
        patch.setattr(pool._admission, "_max_busy_per_tenant", 0)
        patch.setattr(pool._admission, "_max_waiting", 0)
        for _ in range(5):
            with pytest.raises(UnavailableError):
                ask(above)
    assert ask(above) is True
    assert ask(above) is True


def test_a_refusal_is_recorded_and_takes_nothing(above: Workbench) -> None:
    for _ in range(3):
        ask(above)
    for _ in range(4):
        with pytest.raises(LimitError):
            ask(above)
    assert [entry["outcome"] for entry in above.audit() if entry["act"] == "function.invoke"][-1] == "refused"
    # Two of the principal's five are left.
    assert ask(above, "bob") is True
    assert ask(above, "eve") is True
    with pytest.raises(LimitError, match="principal"):
        ask(above, "dan")


def test_who_may_not_ask_takes_nothing(above: Workbench) -> None:
    above.call("principal.create", {"principal": "nobody", "kind": "faas"})
    for _ in range(4):
        with pytest.raises(DeniedError):
            ask(above, caller="nobody")
    assert ask(above) is True


def rows(bench: Workbench, *members: str) -> Any:
    sealed = [bench.seal("ssn", "078-05-1120", member=member) for member in members]
    return bench.invoke("breached@prod", columns={"ssn": sealed}, context={"member": list(members)})


@pytest.fixture
def breached(bench: Workbench) -> Workbench:
    bench.key("ssn")
    bench.deploy(BREACHED)
    return bench


def test_in_a_batch_the_rows_over_their_budget_have_an_error_of_their_own(breached: Workbench) -> None:
    result = rows(breached, "a", "b", "a", "a", "c")
    assert result["values"] == [True, True, True, None, True]
    assert result["errors"] == {"3": {"code": "limit"}}
    assert rows(breached, "a", "b", "c")["errors"] == {"0": {"code": "limit"}}
    assert rows(breached, "b", "c")["errors"] == {"0": {"code": "limit"}, "1": {"code": "limit"}}


def test_a_batch_over_the_principals_budget_is_refused_whole(breached: Workbench) -> None:
    with pytest.raises(LimitError, match="gives a principal 100 answers a hour"):
        rows(breached, *(f"m{number}" for number in range(101)))
    assert rows(breached, *(f"m{number}" for number in range(100)))["errors"] == {}


def test_rows_that_do_not_open_are_no_answers(breached: Workbench) -> None:
    sealed = breached.seal("ssn", "078-05-1120", member="other")
    for _ in range(3):
        breached.invoke("breached@prod", columns={"ssn": [sealed]}, context={"member": ["a"]})
    assert rows(breached, "a")["values"] == [True]


def test_the_database_does_not_tell_whom_it_was_about_and_is_not_believed(above: Workbench) -> None:
    ask(above, "somebody-special")
    connection = sqlite3.connect(above.folder / "host.db")
    with connection:
        stored = connection.execute("SELECT id, content FROM answer_budgets").fetchall()
        assert len(stored) == 2
        assert "somebody-special" not in json.dumps(stored)
        connection.execute(
            "UPDATE answer_budgets SET content = replace(content, '\"answers\":1', '\"answers\":0')"
        )
    connection.close()
    with pytest.raises(TamperedError):
        ask(above, "somebody-special")


def test_a_repetition_under_the_same_key_is_free(above: Workbench) -> None:
    """The dispatcher answers a repetition from the store: what is finished is what it gives."""
    finished = []

    class Act(PlainAct):
        def finish(self, tx: Any, result: Any) -> None:
            finished.append(result)

    operation = above.parts.operations()["function.invoke"]
    salary = above.seal("salaries", 72, person="ann")
    payload = {
        "function": "above@prod",
        "inputs": {"salary": salary, "threshold": 1},
        "context": {"person": "ann"},
    }
    request = operation.parse(json.dumps(payload).encode())
    result = operation.handler(above.caller("lambda", "faas"), request, Act(above.store))
    assert finished == [result]
