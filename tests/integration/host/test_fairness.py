"""A tenant that floods the host is told to wait; others, and what it sends later, are served."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloister.errors import CloisterError, FunctionError, LimitError
from cloister_host import app
from cloister_host.testing import EmbeddedHost, Tenant, embedded_host

SLOW = """
from cloister.function import Limits, boolean, function

@function("slow", output=boolean(), limits=Limits(timeout_seconds=20))
def slow(age: int) -> bool:
    import time
    time.sleep(2)
    return True
"""
FAILS = """
from typing import TypedDict
from cloister.function import boolean, enum, function, record

class Found(TypedDict):
    adult: bool
    band: str

@function("fails", output=record(adult=boolean(), band=enum("young", "old")), batch=True)
def fails(age: list[int]) -> list[Found]:
    if age[0] < 0:
        raise ValueError(str(age[0]))
    if age[0] == 999:
        return [{"adult": "yes"}]
    return [{"adult": value >= 18, "band": "old" if value > 50 else "young"} for value in age]
"""


def written(folder: Path, name: str, source: str) -> Path:
    (folder / name).mkdir()
    (folder / name / f"{name}_function.py").write_text(source)
    return folder / name


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    """A tenant of a host that lets two of its requests in, and two more wait."""
    monkeypatch.setattr(
        app,
        "_limits",
        lambda *_: app.Limits(at_once=1, inside=64, inside_per_tenant=2, waiting_per_tenant=2),
    )
    with embedded_host(tmp_path / "host") as host:
        yield host.tenant()


def test_a_flood_is_refused_for_now_and_others_are_served(narrow: Tenant, tmp_path: Path) -> None:
    narrow.deploy(written(tmp_path, "slow", SLOW))
    client = narrow.client("app", [("invoke", "function/slow")])
    outcomes: list[object] = []

    def call() -> None:
        try:
            outcomes.append(client.invoke("slow@prod", age=1).value)
        except CloisterError as error:
            outcomes.append(error)

    with client:
        client.invoke("slow@prod", age=1)
        threads = [threading.Thread(target=call) for _ in range(16)]
        for thread in threads:
            thread.start()
        other = narrow.host.tenant()
        other.admin.call("key.create", {"key": "k", "purpose": "seal"})
        other.admin.close()
        for thread in threads:
            thread.join()
        refused = [outcome for outcome in outcomes if isinstance(outcome, LimitError)]
        assert True in outcomes
        assert refused
        assert all(error.retryable and "retry after" in error.hint for error in refused)
        assert client.invoke("slow@prod", age=1).value is True


def test_the_reply_to_a_failed_call_is_as_long_as_an_answer(
    cloister_host: EmbeddedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister_host.http.dispatch import Dispatcher

    answer, lengths = Dispatcher.answer, []

    def answering(self: Dispatcher, opened: object) -> object:
        reply = answer(self, opened)
        lengths.append(len(reply))
        return reply

    tenant = cloister_host.tenant()
    tenant.deploy(written(tmp_path, "fails", FAILS))
    with tenant.client("app", [("invoke", "function/fails")]) as client:
        for rows in (1, 600):
            client.invoke_batch("fails@prod", age=[1] * rows)
            monkeypatch.setattr(Dispatcher, "answer", answering)
            for first in (1, 60, -1, 999):
                if first in {-1, 999}:
                    with pytest.raises(FunctionError):
                        client.invoke_batch("fails@prod", age=[first] * rows)
                else:
                    client.invoke_batch("fails@prod", age=[first] * rows)
            monkeypatch.setattr(Dispatcher, "answer", answer)
            assert len(lengths) == 4
            assert len(set(lengths)) == 1
            lengths.clear()
    tenant.admin.close()
