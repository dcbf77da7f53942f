"""Secrets that a confidential function rotates: the new value is seen by nobody on its way."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.errors import ConfigurationError, DeniedError, FunctionError, UnavailableError
from cloister_host.keymanager.scheduler import Scheduler
from support.workbench import TENANT, Workbench

ROTATE = """
import secrets
from cloister.function import function, sealed

@function("rotate-partner", output=sealed("fresh"))
def rotate_partner(secret: str) -> str:
    return f"{secret}-{secrets.token_hex(8)}"
"""
BROKEN = """
from cloister.function import function, sealed

@function("rotate-partner", output=sealed("fresh"))
def rotate_partner(secret: str) -> str:
    raise ValueError("the partner said no")
"""
OPEN = """
from cloister.function import boolean, function

@function("rotate-partner", output=boolean())
def rotate_partner(secret: str) -> bool:
    return True
"""
MONTH = 30 * 86_400


@pytest.fixture
def rotating(bench: Workbench) -> Workbench:
    bench.key("fresh")
    bench.deploy(ROTATE)
    bench.grant("admin", "invoke", "function/rotate-partner")
    bench.grant("admin", "decrypt", "key/fresh")
    bench.grant("admin", "secret.read", "secret/*")
    bench.call("secret.put", {"secret": "partner", "value": "first"})
    schedule(bench, every_seconds=MONTH)
    return bench


def schedule(bench: Workbench, **more: Any) -> Any:
    rotation = {"secret": "partner", "function": "rotate-partner@prod", "key": "fresh", **more}
    return bench.call("secret.schedule", rotation)


def value(bench: Workbench) -> tuple[int, str]:
    given = bench.call("secret.get", {"secret": "partner"})
    return given["version"], given["value"]


def scheduler(bench: Workbench) -> Scheduler:
    errands = [bench.parts.secret_rotation.rotate_due]
    return Scheduler(bench.store.begin, bench.services.chores(), errands)


def test_a_secret_is_rotated_on_demand_and_its_value_is_in_no_answer(rotating: Workbench) -> None:
    info = rotating.call("secret.rotate", {"secret": "partner"})
    version, fresh = value(rotating)
    assert (info["version"], version) == (2, 2)
    assert fresh.startswith("partner-")
    assert fresh not in str(info)
    assert fresh not in str(rotating.audit())
    [entry] = [entry for entry in rotating.audit() if entry["act"] == "secret.rotate"]
    assert entry["detail"] == {"version": 2, "function": "rotate-partner@prod", "kid": "fresh.1"}


def test_a_secret_is_rotated_by_schedule_and_once(rotating: Workbench) -> None:
    scheduler(rotating).round()
    assert value(rotating) == (1, "first")
    rotating.clock.now += MONTH
    for replica in (scheduler(rotating), scheduler(rotating)):
        replica.round()
    assert value(rotating)[0] == 2


@pytest.mark.parametrize("lacks", [("invoke", "function/rotate-partner"), ("decrypt", "key/fresh")])
def test_only_whoever_may_invoke_the_function_and_open_its_answer_rotates_with_it(
    rotating: Workbench, lacks: tuple[str, str]
) -> None:
    rotating.call("principal.create", {"principal": "keeper", "kind": "person"})
    rotating.grant("keeper", "secret.manage", "secret/partner")
    for right in {("invoke", "function/rotate-partner"), ("decrypt", "key/fresh")} - {lacks}:
        rotating.grant("keeper", *right)
    keeper = rotating.caller("keeper")
    rotation = {"secret": "partner", "function": "rotate-partner@prod", "key": "fresh"}
    for op, payload in (("secret.schedule", rotation), ("secret.rotate", {"secret": "partner"})):
        with pytest.raises(DeniedError):
            rotating.call(op, payload, caller=keeper)
    rotating.grant("keeper", *lacks)
    rotating.call("secret.rotate", {"secret": "partner"}, caller=keeper)


@pytest.mark.parametrize("right", [("invoke", "function/rotate-partner"), ("decrypt", "key/fresh")])
def test_a_rotation_ends_with_the_rights_of_whoever_asked_for_it(
    rotating: Workbench, right: tuple[str, str]
) -> None:
    action, resource = right
    rotating.call("grant.delete", {"principal": "admin", "action": action, "resource": resource})
    rotating.clock.now += MONTH
    scheduler(rotating).round()
    assert value(rotating) == (1, "first")
    [entry] = [entry for entry in rotating.audit() if entry["act"] == "secret.rotate"]
    assert (entry["outcome"], entry["detail"]["error"]) == ("failed", "denied")


@pytest.mark.parametrize("source", [BROKEN, OPEN], ids=["fails", "answers in the clear"])
def test_a_function_that_gives_no_sealed_secret_leaves_the_old_one(rotating: Workbench, source: str) -> None:
    rotating.deploy(source)
    with pytest.raises(FunctionError):
        rotating.call("secret.rotate", {"secret": "partner"})
    assert value(rotating) == (1, "first")
    rotating.deploy(ROTATE)  # nothing stands in the way of the next attempt
    rotating.call("secret.rotate", {"secret": "partner"})
    assert value(rotating)[0] == 2


def test_an_answer_under_another_key_than_the_one_that_was_named_is_no_secret(rotating: Workbench) -> None:
    rotating.key("other")
    rotating.grant("admin", "decrypt", "key/other")
    schedule(rotating, key="other")
    with pytest.raises(FunctionError, match="no secret"):
        rotating.call("secret.rotate", {"secret": "partner"})
    assert value(rotating) == (1, "first")


def test_a_rotation_that_is_going_on_is_not_begun_twice(rotating: Workbench) -> None:
    secrets = rotating.services.secrets
    with rotating.store.begin() as tx:
        secrets.lease_rotation(tx, secrets.rotation(tx, rotating.caller(), "partner"), seconds=600)
    with pytest.raises(UnavailableError, match="being rotated"):
        rotating.call("secret.rotate", {"secret": "partner"})
    rotating.clock.now += MONTH
    rotating.call("secret.rotate", {"secret": "partner"})


def test_a_host_that_dies_before_the_end_keeps_the_old_value_and_tries_again(
    rotating: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DiedError(BaseException):
        pass

    def die(*_arguments: Any, **_named: Any) -> None:
        raise DiedError

    rotating.clock.now += MONTH
    with monkeypatch.context() as patch:
        patch.setattr(rotating.services.secrets, "add", die, raising=False)
        with pytest.raises(DiedError):
            scheduler(rotating).round()
    assert value(rotating) == (1, "first")
    scheduler(rotating).round()
    assert value(rotating) == (1, "first")
    rotating.clock.now += 600
    scheduler(rotating).round()
    assert value(rotating)[0] == 2


@pytest.mark.parametrize(
    "payload", [{"function": "rotate-partner@prod"}, {"key": "fresh"}, {"every_seconds": MONTH}]
)
def test_half_a_rotation_is_refused(rotating: Workbench, payload: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        rotating.call("secret.schedule", {"secret": "partner", **payload})


def test_a_rotation_can_be_taken_back(rotating: Workbench) -> None:
    assert rotating.call("secret.schedule", {"secret": "partner"})["function"] is None
    with pytest.raises(ConfigurationError, match="no rotation"):
        rotating.call("secret.rotate", {"secret": "partner"})
    assert rotating.caller().tenant == TENANT
