"""Invocations that nobody waits for: progress, cancellation, restarts, retention."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import ConfigurationError, DeniedError, LimitError
from cloister_host.functions.jobs import records
from cloister_host.functions.jobs.records import Jobs
from cloister_host.functions.jobs.runner import JobRunner
from cloister_host.functions.messages import Invoke
from cloister_host.identity.caller import OPERATOR, SYSTEM_TENANT
from cloister_host.store import TamperedError
from support.claims import claims_of
from support.workbench import TENANT, Workbench

COUNTS = """
import time
from typing import Annotated
from cloister.function import Limits, function, number, progress, sealed

@function("counts", output=number(minimum=0, maximum=100, step=1),
          limits=Limits(timeout_seconds=600), progress=True)
def counts(upto: Annotated[int, sealed("numbers")], how: str = "") -> int:
    for step in range(upto):
        progress(step + 1, upto * (2 if how == "hang" else 1))
    while how == "hang":
        time.sleep(0.01)
    if how == "fail":
        raise ValueError("secret text")
    return upto
"""

ASKS = """
from typing import Annotated
from cloister.function import Origin, boolean, function, origin, sealed

@function("asks", output=boolean(), egress={"partner": origin("https://partner.example")})
def asks(upto: Annotated[int, sealed("numbers")], how: str, *, partner: Origin) -> bool:
    return partner.get("/").status == 200
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    workbench = Workbench(tmp_path)
    workbench.key("numbers")
    workbench.deploy(COUNTS)
    yield workbench
    workbench.close()


def start(bench: Workbench, how: str = "", function: str = "counts") -> str:
    inputs = {"upto": bench.seal("numbers", 7), "how": how}
    payload = {"function": f"{function}@prod", "inputs": inputs}
    job = bench.call("function.start", payload, caller=bench.caller("lambda", "faas"))
    assert job["state"] == "waiting"
    return str(job["job"])


def get(bench: Workbench, job: str, caller: str = "lambda") -> Any:
    return bench.call("job.get", {"job": job}, caller=bench.caller(caller, "faas"))


def run(bench: Workbench) -> None:
    bench.parts.jobs.tick()
    bench.parts.jobs.drain()


def until(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(2000):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it did not happen")


def test_a_job_runs_and_its_result_is_asked_for(bench: Workbench) -> None:
    job = start(bench)
    assert get(bench, job)["result"] is None
    run(bench)
    done = get(bench, job)
    assert (done["state"], done["percent"], done["result"]["value"]) == ("done", 100, 7)
    # The receipt names the request that started it.
    assert claims_of(done["result"])["eat_nonce"] == "digest-of-the-sealed-request"
    assert done["function"].startswith("counts@")


def test_a_function_that_may_take_long_only_runs_as_a_job(bench: Workbench) -> None:
    with pytest.raises(ConfigurationError, match="longer than 300 seconds"):
        bench.invoke("counts@prod", inputs={"upto": bench.seal("numbers", 7)})


def test_a_job_that_fails_says_how_and_nothing_else(bench: Workbench) -> None:
    job = start(bench, "fail")
    run(bench)
    failed = get(bench, job)
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "function"
    assert "ValueError" in failed["error"]["message"]
    assert "secret" not in str(failed)


def test_progress_is_seen_while_it_runs_and_cancelling_ends_it(bench: Workbench) -> None:
    job = start(bench, "hang")
    bench.parts.jobs.tick()
    until(lambda: bench.parts.jobs._runs()[0].percent == 50)
    bench.parts.jobs.tick()
    running = get(bench, job)
    assert (running["state"], running["percent"]) == ("running", 50)
    bench.call("job.cancel", {"job": job}, caller=bench.caller("lambda", "faas"))
    run(bench)
    assert get(bench, job)["state"] == "cancelled"
    with pytest.raises(ConfigurationError, match="the job is cancelled"):
        bench.call("job.cancel", {"job": job}, caller=bench.caller("lambda", "faas"))


def test_progress_that_was_not_declared_does_not_leave(bench: Workbench) -> None:
    bench.deploy(COUNTS.replace(", progress=True", ""))
    job = start(bench, "hang")
    bench.parts.jobs.tick()
    until(lambda: bool(bench.parts.jobs._runs()) and bench.parts.jobs._runs()[0].watch.ran)
    bench.parts.jobs.tick()
    assert get(bench, job)["percent"] == 0
    bench.call("job.cancel", {"job": job})
    run(bench)


def test_a_waiting_job_is_cancelled_at_once(bench: Workbench) -> None:
    job = start(bench)
    bench.call("job.cancel", {"job": job}, caller=bench.caller("lambda", "faas"))
    run(bench)
    assert get(bench, job)["state"] == "cancelled"


def another_host(bench: Workbench) -> JobRunner:
    """A host that finds what this one left."""
    return JobRunner(
        begin=bench.store.begin,
        jobs=Jobs(bench.clock),
        invocation=bench.parts.functions._invocation,
        audit=bench.services.audit,
    )


def leave_running(bench: Workbench, job: str) -> None:
    """As if the host that runs it had died."""
    jobs = Jobs(bench.clock)
    with bench.store.begin() as tx:
        jobs.lease(tx, jobs.get(tx, TENANT, job))


def test_what_waits_survives_the_host(bench: Workbench) -> None:
    job = start(bench)
    other = another_host(bench)
    other.tick()
    other.drain()
    assert get(bench, job)["state"] == "done"
    other.close()


def test_what_ran_runs_again_when_nothing_can_have_left(bench: Workbench) -> None:
    job = start(bench)
    leave_running(bench, job)
    run(bench)
    assert get(bench, job)["state"] == "running", "its lease still holds"
    bench.clock.now += 31
    run(bench)
    done = get(bench, job)
    assert (done["state"], done["attempts"]) == ("done", 2)


def test_what_ran_with_egress_is_lost(bench: Workbench) -> None:
    bench.deploy(ASKS)
    job = start(bench, function="asks")
    leave_running(bench, job)
    bench.clock.now += 31
    run(bench)
    assert get(bench, job)["state"] == "lost"


def test_a_job_that_ends_its_host_each_time_is_lost_in_the_end(bench: Workbench) -> None:
    job = start(bench)
    for _ in range(records.MAX_ATTEMPTS):
        leave_running(bench, job)
        bench.clock.now += 31
    run(bench)
    assert get(bench, job)["state"] == "lost"


def test_a_host_that_lost_its_lease_writes_no_result(bench: Workbench) -> None:
    job = start(bench, "hang")
    bench.parts.jobs.tick()
    until(lambda: bool(bench.parts.jobs._runs()) and bench.parts.jobs._runs()[0].watch.ran)
    leave_running(bench, job)
    run(bench)
    assert get(bench, job)["state"] == "running", "the other host's"


def test_a_host_that_is_stopped_hands_its_jobs_back(tmp_path: Path, bench: Workbench) -> None:
    job = start(bench, "hang")
    runner = another_host(bench)
    runner.tick()
    until(lambda: bool(runner._runs()) and runner._runs()[0].watch.ran)
    runner.close()
    assert get(bench, job)["state"] == "waiting"


def test_a_lease_is_kept_while_it_runs(bench: Workbench) -> None:
    job = start(bench, "hang")
    bench.parts.jobs.tick()
    until(lambda: bool(bench.parts.jobs._runs()) and bench.parts.jobs._runs()[0].watch.ran)
    bench.clock.now += 20
    bench.parts.jobs.tick()
    bench.clock.now += 20
    other = another_host(bench)
    other.tick()
    assert get(bench, job)["attempts"] == 1
    bench.call("job.cancel", {"job": job})
    run(bench)
    other.close()


def test_results_are_kept_for_a_day(bench: Workbench) -> None:
    job = start(bench)
    run(bench)
    bench.clock.now += 24 * 3600 + 1
    run(bench)
    with pytest.raises(ConfigurationError, match="no such job"):
        bench.call("job.get", {"job": job})


def test_each_principal_sees_its_own_jobs_only(bench: Workbench) -> None:
    bench.call("principal.create", {"principal": "other", "kind": "faas"})
    bench.grant("other", "invoke", "function/counts")
    job = start(bench)
    for op in ("job.get", "job.cancel"):
        refusals = set()
        for name in (job, "A" * 22):
            with pytest.raises(DeniedError) as refused:
                bench.call(op, {"job": name}, caller=bench.caller("other", "faas"))
            refusals.add(str(refused.value))
        assert len(refusals) == 1
    with pytest.raises(DeniedError):
        bench.call("job.list", {}, caller=bench.caller("lambda", "faas"))
    assert [found["job"] for found in bench.call("job.list", {})["jobs"]] == [job]


def test_who_may_not_invoke_starts_nothing(bench: Workbench) -> None:
    with pytest.raises(DeniedError):
        bench.call("function.start", {"function": "counts@prod", "inputs": {}})
    assert bench.call("job.list", {})["jobs"] == []


def test_a_right_taken_back_stops_what_waits(bench: Workbench) -> None:
    job = start(bench)
    bench.call("grant.delete", {"principal": "lambda", "action": "invoke", "resource": "function/counts"})
    run(bench)
    assert get(bench, job)["error"]["code"] == "denied"


def test_a_disabled_principal_has_nothing_run(bench: Workbench) -> None:
    job = start(bench)
    bench.call("principal.disable", {"principal": "lambda"})
    run(bench)
    assert get(bench, job)["error"]["code"] == "denied"


def condition(bench: Workbench, **conditions: Any) -> None:
    """Let `lambda` invoke `counts` under these conditions only."""
    grant = {"principal": "lambda", "action": "invoke", "resource": "function/counts"}
    bench.call("grant.delete", grant)
    bench.call("grant.create", {**grant, "conditions": conditions})


def test_a_grant_for_one_digest_holds_for_its_jobs(bench: Workbench) -> None:
    digest = bench.call("function.list", {})["functions"][0]["versions"][0]["digest"]
    condition(bench, functions=[digest])
    job = start(bench)
    run(bench)
    assert get(bench, job)["state"] == "done"
    condition(bench, functions=["ab" * 32])
    with pytest.raises(DeniedError):
        start(bench)


class NoSlices:
    """What a stream begins with."""

    def __init__(self, bench: Workbench) -> None:
        self.begin = bench.store.begin

    @staticmethod
    def decided(_tx: object, _what: str, decide: Callable[[], bytes]) -> bytes:
        return decide()


def test_a_grant_for_one_digest_holds_for_its_streams(bench: Workbench) -> None:
    digest = bench.call("function.list", {})["functions"][0]["versions"][0]["digest"]
    condition(bench, functions=[digest])
    operation = bench.parts.operations()["function.stream"]
    request = operation.parse(b'{"function": "counts@prod"}')
    stream = operation.handler(bench.caller("lambda", "faas"), request, NoSlices(bench))
    with pytest.raises(ConfigurationError, match="columns of one length"):  # it was let in
        next(stream)


def test_a_job_runs_for_the_purpose_it_was_started_for(bench: Workbench) -> None:
    condition(bench, purposes=["fraud"])
    payload = {"function": "counts@prod", "inputs": {"upto": bench.seal("numbers", 7)}}
    caller = replace(bench.caller("lambda", "faas"), purpose="fraud")
    job = bench.call("function.start", payload, caller=caller)["job"]
    run(bench)
    assert get(bench, job)["state"] == "done"


def test_the_code_is_the_one_that_was_started(bench: Workbench) -> None:
    job = start(bench)
    bench.deploy(COUNTS.replace("return upto", "return 99"))
    run(bench)
    assert get(bench, job)["result"]["value"] == 7


def test_one_tenant_never_has_all_the_slots(bench: Workbench) -> None:
    jobs = [start(bench, "hang") for _ in range(6)]
    bench.parts.jobs.tick()
    assert sum(get(bench, job)["state"] == "running" for job in jobs) == 3
    for job in jobs:
        bench.call("job.cancel", {"job": job})
    run(bench)


def test_a_tenant_has_a_bounded_number_of_jobs(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_JOBS", 1)
    start(bench)
    with pytest.raises(LimitError):
        start(bench)


def test_a_stored_request_and_result_cannot_be_read_or_moved(bench: Workbench) -> None:
    first, second = start(bench), start(bench)
    run(bench)
    connection = sqlite3.connect(bench.folder / "host.db")
    with connection:
        content = str(connection.execute("SELECT * FROM jobs").fetchall())
        assert '"value"' not in content
        connection.execute(
            "UPDATE jobs SET secret = (SELECT secret FROM jobs WHERE id = ?) WHERE id = ?", (first, second)
        )
    connection.close()
    with pytest.raises(TamperedError):
        get(bench, second)


def test_a_job_that_was_tampered_with_is_skipped_and_told_and_others_run(bench: Workbench) -> None:
    bench.call("tenant.create", {"tenant": "other"}, caller=bench.caller(OPERATOR, tenant=SYSTEM_TENANT))
    with bench.store.begin() as tx:
        spoiled = Jobs(bench.clock).add(
            tx,
            bench.caller("admin", tenant="other"),
            Invoke(function="counts@prod", inputs={}),
            digest="d",
            repeatable=True,
        )
    job = start(bench)
    connection = sqlite3.connect(bench.folder / "host.db")
    with connection:
        connection.execute("UPDATE jobs SET version = version + 1 WHERE id = ?", (spoiled.id,))
        connection.execute("INSERT INTO jobs_due (due, tenant, id) VALUES (0, 'nobody', 'nothing')")
    connection.close()
    run(bench)
    assert get(bench, job)["state"] == "done"
    run(bench)
    with bench.store.begin() as tx:
        told = [
            entry
            for entry in bench.services.audit.read(tx, "other", after="", limit=99)
            if entry.act == "job.run"
        ]
    assert [(entry.outcome, entry.resource) for entry in told] == [("failed", f"jobs/{spoiled.id}")]


def test_a_running_job_whose_row_was_tampered_with_is_ended_and_others_go_on(bench: Workbench) -> None:
    job = start(bench, "hang")
    bench.parts.jobs.tick()
    until(lambda: bool(bench.parts.jobs._runs()) and bench.parts.jobs._runs()[0].watch.ran)
    connection = sqlite3.connect(bench.folder / "host.db")
    with connection:
        connection.execute("UPDATE jobs SET version = version + 1 WHERE id = ?", (job,))
    connection.close()
    bench.parts.jobs.tick()
    bench.parts.jobs.drain()
    assert bench.parts.jobs._runs() == []


def test_a_condition_on_claims_holds_for_a_job_as_it_did_when_it_was_started(bench: Workbench) -> None:
    bench.call("grant.delete", {"principal": "lambda", "action": "invoke", "resource": "function/counts"})
    bench.call(
        "grant.create",
        {
            "principal": "lambda",
            "action": "invoke",
            "resource": "function/counts",
            "conditions": {"claims": {"team": "blue"}},
        },
    )
    payload = {"function": "counts@prod", "inputs": {"upto": bench.seal("numbers", 7)}}
    for claims, state in (
        ({"team": "blue", "mail": "a@b.example"}, "done"),
        ({"team": "red"}, None),
        ({}, None),
    ):
        caller = replace(bench.caller("lambda", "faas"), claims=claims)
        if state is None:
            with pytest.raises(DeniedError):
                bench.call("function.start", payload, caller=caller)
            continue
        job = bench.call("function.start", payload, caller=caller)["job"]
        connection = sqlite3.connect(bench.folder / "host.db")
        assert "a@b.example" not in str(connection.execute("SELECT * FROM jobs").fetchall())
        connection.close()
        run(bench)
        assert get(bench, job)["state"] == state


def test_jobs_run_by_themselves(bench: Workbench) -> None:
    bench.parts.jobs.start()
    job = start(bench)
    until(lambda: get(bench, job)["state"] == "done")


def test_who_manages_jobs_does_not_see_what_they_answered(bench: Workbench) -> None:
    job = start(bench)
    run(bench)
    managed = bench.call("job.get", {"job": job})
    assert (managed["state"], managed["result"]) == ("done", None)
    assert get(bench, job)["result"]["value"] == 7


def seal_off(bench: Workbench, *, sealed: bool) -> None:
    with bench.store.begin() as tx:
        tx.seal_off(TENANT, sealed=sealed)


def test_jobs_of_a_sealed_off_tenant_wait_and_hold_nobody_up(bench: Workbench) -> None:
    job = start(bench)
    seal_off(bench, sealed=True)
    run(bench)
    seal_off(bench, sealed=False)
    assert get(bench, job)["state"] == "waiting"
    run(bench)
    assert get(bench, job)["state"] == "done"


def test_sealing_a_tenant_off_ends_what_runs(bench: Workbench) -> None:
    job = start(bench, "hang")
    bench.parts.jobs.tick()
    until(lambda: bool(bench.parts.jobs._runs()) and bench.parts.jobs._runs()[0].watch.ran)
    seal_off(bench, sealed=True)
    bench.clock.now += 20
    run(bench)
    seal_off(bench, sealed=False)
    assert get(bench, job)["state"] == "failed"
