"""Key officers' acts: states honoured by everything that uses keys, at once."""

from __future__ import annotations

from typing import Any

import pytest

from cloister import jose
from cloister.envelope import seal_to
from cloister.errors import ConfigurationError, DeniedError, LimitError, OpenError, QuorumNeededError
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.lifecycle import IllegalTransitionError
from cloister_host.keymanager.scheduler import Scheduler
from cloister_host.services import build_services
from support.faults import crash_at_every_step
from support.host_world import HostWorld
from unit.host.keymanager.test_keys import lease, open_one

DAY = 86_400


@pytest.fixture
def app(host: HostWorld) -> Caller:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    return host.principal("app", *[(action, "key/ssn") for action in ("seal", "wrap", "unwrap", "decrypt")])


def move(host: HostWorld, kid: str, state: str, **more: Any) -> Any:
    return host.call(host.admin, "key.state", kid=kid, state=state, **more)


def versions(host: HostWorld, key: str = "ssn") -> dict[str, str]:
    shown = host.call(host.admin, "key.show", key=key).key
    return {version.kid: version.state for version in shown.versions}


def scheduler(host: HostWorld) -> Scheduler:
    return Scheduler(host.store.begin, host.services.chores())


# --- states, at once and everywhere ---


@pytest.mark.parametrize(
    ("state", "accept", "opens"),
    [
        ("suspended", False, False),
        ("suspended", True, True),
        ("deactivated", False, True),
        ("compromised", False, False),
        ("compromised", True, True),
    ],
)
def test_a_state_holds_for_whoever_uses_the_key_next(
    host: HostWorld, app: Caller, state: str, accept: bool, opens: bool
) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    sealed = lease(host, app).seal("x")
    function = host.admin.as_function("d" * 43)
    for action in ("seal", "use-in-function"):
        host.grant(function.principal, action, "key/ssn")
    with host.store.begin() as tx:  # warm every cache there is
        host.services.keymanager.seal_values(tx, function, "ssn", ["y"])
        assert host.services.keymanager.open_values(tx, function, "ssn", [sealed]) == ["x"]
    assert open_one(host, app, sealed).value == "x"

    assert move(host, "ssn.1", state, accept_processing=accept).state == state

    for op, more in (("key.data_key", {}), ("key.wrap", {"dek": issued.dek})):
        with pytest.raises(ConfigurationError, match="present state"):
            host.call(app, op, key="ssn", **more)
    with host.store.begin() as tx, pytest.raises(ConfigurationError, match="present state"):
        host.services.keymanager.seal_values(tx, function, "ssn", ["y"])
    with host.store.begin() as tx:
        [opened] = host.services.keymanager.open_values(tx, function, "ssn", [sealed])
    assert isinstance(opened, OpenError) is not opens
    assert (open_one(host, app, sealed).error != "open") is opens
    unwrap = {"kid": issued.kid, "encrypted_key": issued.encrypted_key}
    if opens:
        assert host.call(app, "key.unwrap", **unwrap).dek == issued.dek
    else:
        with pytest.raises(OpenError):
            host.call(app, "key.unwrap", **unwrap)


def test_a_public_key_that_is_not_active_is_vouched_for_no_more(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="docs", purpose="seal-public")
    who = host.principal("app", ("decrypt", "key/docs"))
    jwk = host.call(host.admin, "key.public", key="docs").jwk
    sealed = seal_to("x", jwk, kid="docs.1")
    move(host, "docs.1", "deactivated")
    with pytest.raises(ConfigurationError, match="present state"):
        host.call(host.admin, "key.public", key="docs")
    assert open_one(host, who, sealed).value == "x"


def test_an_illegal_transition_changes_nothing_and_says_what_is_legal(host: HostWorld, app: Caller) -> None:
    move(host, "ssn.1", "compromised")
    with pytest.raises(IllegalTransitionError, match="compromised version cannot become active"):
        move(host, "ssn.1", "active")
    assert versions(host) == {"ssn.1": "compromised"}


def test_every_act_of_an_officer_is_recorded_with_what_it_did(host: HostWorld, app: Caller) -> None:
    move(host, "ssn.1", "suspended", reason="ticket 17")
    [entry] = host.audited("key.state")
    assert entry.detail == {
        "kid": "ssn.1",
        "from": "active",
        "to": "suspended",
        "processing": 0,
        "reason": "ticket 17",
    }


@pytest.mark.parametrize(
    ("op", "payload", "right"),
    [
        ("key.state", {"kid": "ssn.1", "state": "suspended"}, "key.manage"),
        ("key.schedule", {"key": "ssn", "rotate_seconds": DAY}, "key.manage"),
        ("key.destroy", {"kid": "ssn.1"}, "key.destroy"),
        ("key.restore", {"kid": "ssn.1"}, "key.manage"),
        ("key.show", {"key": "ssn"}, "key.read"),
    ],
)
def test_an_act_needs_its_own_right_and_tells_nothing_of_what_exists(
    host: HostWorld, app: Caller, op: str, payload: dict[str, Any], right: str
) -> None:
    others = {"key.manage", "key.read", "key.destroy", "seal", "decrypt"} - {right}
    who = host.principal("nosy", *[(action, "key/*") for action in others])
    with pytest.raises(DeniedError) as existing:
        host.call(who, op, **payload)
    missing = {
        name: value.replace("ssn", "nothing") if isinstance(value, str) else value
        for name, value in payload.items()
    }
    with pytest.raises(DeniedError) as absent:
        host.call(who, op, **missing)
    assert str(existing.value) == str(absent.value)
    assert versions(host) == {"ssn.1": "active"}


@pytest.mark.parametrize("op", ["key.state", "key.destroy", "key.restore"])
def test_another_tenants_version_is_one_that_is_not_there(host: HostWorld, app: Caller, op: str) -> None:
    more = {"state": "suspended"} if op == "key.state" else {}
    with pytest.raises(ConfigurationError, match="no such key"):
        host.call(host.other_admin, op, kid="ssn.1", **more)


# --- time ---


def test_a_version_waits_for_its_activation_and_the_one_before_goes_on(host: HostWorld, app: Caller) -> None:
    at = int(host.clock()) + DAY
    host.call(host.admin, "key.rotate", key="ssn", activate_at=at)
    assert lease(host, app).kid == "ssn.1"
    assert versions(host) == {"ssn.1": "active", "ssn.2": "pre_activation"}
    host.clock.now += DAY
    assert lease(host, app).kid == "ssn.2"
    assert versions(host) == {"ssn.1": "deactivated", "ssn.2": "active"}


def test_an_activation_that_is_put_off_takes_the_version_before_along(host: HostWorld, app: Caller) -> None:
    now = int(host.clock())
    host.call(host.admin, "key.rotate", key="ssn", activate_at=now + DAY)
    host.call(host.admin, "key.schedule", key="ssn", activate_at=now + 2 * DAY)
    host.clock.now += DAY
    assert lease(host, app).kid == "ssn.1"
    host.clock.now += DAY
    assert lease(host, app).kid == "ssn.2"


def test_a_cryptoperiod_ends_without_anybody_doing_anything(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="logs", purpose="seal", active_seconds=DAY, recipient_seconds=DAY)
    who = host.principal("app", ("seal", "key/logs"), ("decrypt", "key/logs"))
    sealed = lease(host, who, "logs").seal("x")
    host.clock.now += DAY
    with pytest.raises(ConfigurationError, match="rotate"):
        host.call(who, "key.data_key", key="logs")
    assert open_one(host, who, sealed).value == "x"
    host.clock.now += DAY
    assert open_one(host, who, sealed).error == "open"


def test_a_clock_that_is_set_back_revives_nothing(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="logs", purpose="seal", active_seconds=DAY, recipient_seconds=DAY)
    who = host.principal("app", ("seal", "key/logs"), ("decrypt", "key/logs"))
    sealed = lease(host, who, "logs").seal("x")
    host.clock.now += 3 * DAY
    assert open_one(host, who, sealed).error == "open"
    host.clock.now -= 3 * DAY
    assert open_one(host, who, sealed).error == "open"
    with pytest.raises(ConfigurationError, match="present state"):
        host.call(who, "key.data_key", key="logs")
    with pytest.raises(ConfigurationError, match="present state"):
        host.call(who, "key.data_key", key="logs")


def test_what_time_did_outlives_a_restart_under_an_earlier_clock(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.destroy", kid="ssn.1")
    host.clock.now += 7 * DAY
    scheduler(host).round()
    host.clock.now -= 7 * DAY
    restore = build_services(host.store, host.root, host.clock).operations()["key.restore"]
    request = restore.parse(b'{"kid":"ssn.1"}')
    with host.store.begin() as tx, pytest.raises(IllegalTransitionError, match="destroyed"):
        restore.handler(host.admin, request, tx)


# --- minimum versions ---


def test_minimum_versions_hold_for_sealing_and_opening(host: HostWorld, app: Caller) -> None:
    old = lease(host, app).seal("old")
    host.call(host.admin, "key.rotate", key="ssn")
    new = lease(host, app).seal("new")
    assert open_one(host, app, old).value == "old"
    host.call(host.admin, "key.schedule", key="ssn", min_open=2)
    assert open_one(host, app, old).error == "open"
    assert open_one(host, app, new).value == "new"
    host.call(host.admin, "key.schedule", key="ssn", min_open=1)
    assert open_one(host, app, old).value == "old"


def test_a_minimum_for_sealing_keeps_an_older_version_from_it(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.rotate", key="ssn", activate_at=int(host.clock()) + DAY)
    host.call(host.admin, "key.schedule", key="ssn", min_seal=2)
    with pytest.raises(ConfigurationError, match="present state"):
        host.call(app, "key.data_key", key="ssn")


def test_a_minimum_above_the_newest_version_is_refused(host: HostWorld, app: Caller) -> None:
    with pytest.raises(ConfigurationError, match="above the newest"):
        host.call(host.admin, "key.schedule", key="ssn", min_open=2)


# --- destruction ---


def test_destruction_waits_has_a_way_back_and_then_none(host: HostWorld, app: Caller) -> None:
    sealed = lease(host, app).seal("x")
    with pytest.raises(ConfigurationError, match="at least"):
        host.call(host.admin, "key.destroy", kid="ssn.1", wait_seconds=DAY)
    host.call(host.admin, "key.destroy", kid="ssn.1")
    assert open_one(host, app, sealed).error == "open"
    host.clock.now += 7 * DAY - 1
    host.call(host.admin, "key.restore", kid="ssn.1")
    assert open_one(host, app, sealed).value == "x"
    host.call(host.admin, "key.destroy", kid="ssn.1", wait_seconds=8 * DAY)
    host.clock.now += 8 * DAY
    assert open_one(host, app, sealed).error == "open"
    with pytest.raises(IllegalTransitionError, match="destroyed"):
        host.call(host.admin, "key.restore", kid="ssn.1")


def test_the_material_is_gone_from_the_database_after_the_wait(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.destroy", kid="ssn.1")
    host.clock.now += 7 * DAY
    [[blob]] = host.pen("SELECT secret FROM key_versions WHERE id = 'value/ssn.1'")
    assert blob is not None
    scheduler(host).round()
    [[blob]] = host.pen("SELECT secret FROM key_versions WHERE id = 'value/ssn.1'")
    assert blob is None
    assert [entry.detail["state"] for entry in host.audited("key.settle")] == ["destroyed"]


def test_a_wait_is_only_ever_made_longer(host: HostWorld, app: Caller) -> None:
    with pytest.raises(ConfigurationError, match="longer"):
        host.call(host.admin, "key.schedule", key="ssn", destroy_wait_seconds=1)
    host.call(host.admin, "key.schedule", key="ssn", destroy_wait_seconds=30 * DAY)
    with pytest.raises(ConfigurationError, match="at least"):
        host.call(host.admin, "key.destroy", kid="ssn.1", wait_seconds=8 * DAY)


# --- rotation by the host ---


def test_a_key_is_rotated_when_it_is_due_and_once(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="logs", purpose="seal", rotate_seconds=DAY)
    replicas = [
        scheduler(host),
        Scheduler(host.store.begin, build_services(host.store, host.root, host.clock).chores()),
    ]
    for replica in replicas:
        replica.round()
    assert versions(host, "logs") == {"logs.1": "active"}
    host.clock.now += DAY
    for replica in replicas:
        replica.round()
    assert versions(host, "logs") == {"logs.1": "deactivated", "logs.2": "active"}
    [entry] = host.audited("key.rotate")
    assert (entry.principal, entry.detail["kid"]) == ("host/scheduler", "logs.2")


def test_a_rotation_that_expects_another_version_is_refused(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.rotate", key="ssn", if_kid="ssn.1")
    with pytest.raises(ConfigurationError, match="rotated meanwhile"):
        host.call(host.admin, "key.rotate", key="ssn", if_kid="ssn.1")
    assert versions(host) == {"ssn.1": "deactivated", "ssn.2": "active"}


def test_a_damaged_key_stops_the_rotation_of_no_other_tenant(host: HostWorld, app: Caller) -> None:
    host.call(host.other_admin, "key.create", key="logs", purpose="seal", rotate_seconds=DAY)
    host.pen("UPDATE keys SET content = replace(content, 'seal', 'mac') WHERE tenant = 'acme'")
    host.clock.now += DAY
    scheduler(host).round()
    assert host.call(host.other_admin, "key.show", key="logs").key.kid == "logs.2"


def test_a_running_scheduler_does_it_by_itself_and_stops(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="logs", purpose="seal", rotate_seconds=DAY)
    host.clock.now += DAY
    running = Scheduler(host.store.begin, host.services.chores(), poll_seconds=0.01)
    running.start()
    try:
        for _ in range(500):
            if versions(host, "logs").get("logs.2") == "active":
                break
        else:
            pytest.fail("the scheduler rotated nothing")
    finally:
        running.close()


# --- usage ---


def test_a_version_leases_no_more_than_its_limit_over_all_replicas(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="logs", purpose="seal", max_messages=1000)
    who = host.principal("app", ("seal", "key/logs"))
    first = host.call(who, "key.data_key", key="logs", messages=600)
    assert first.max_messages == 600
    replica = build_services(host.store, host.root, host.clock).operations()["key.data_key"]
    with host.store.begin() as tx:
        second = replica.handler(who, replica.parse(b'{"key":"logs","messages":600}'), tx)
    assert second.max_messages == 400
    with pytest.raises(LimitError, match="protected all it may"):
        host.call(who, "key.data_key", key="logs", messages=1)
    host.call(host.admin, "key.rotate", key="logs")
    assert host.call(who, "key.data_key", key="logs", messages=600).max_messages == 600


def test_a_data_key_from_outside_needs_all_it_may_ever_seal(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="few", purpose="seal", max_messages=2**24 + 5)
    who = host.principal("app", ("wrap", "key/few"))
    host.call(who, "key.wrap", key="few", dek="A" * 43)
    with pytest.raises(LimitError):
        host.call(who, "key.wrap", key="few", dek="A" * 43)


def test_a_function_seals_no_more_than_the_limit(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="logs", purpose="seal", max_messages=10)
    function = host.admin.as_function("d" * 43)
    host.grant(function.principal, "seal", "key/logs")
    with host.store.begin() as tx:
        host.services.keymanager.seal_values(tx, function, "logs", ["y"] * 10)
    with host.store.begin() as tx, pytest.raises(LimitError):
        host.services.keymanager.seal_values(tx, function, "logs", ["y"])


def test_what_hangs_on_a_version_is_told_and_so_is_what_is_not_known(host: HostWorld, app: Caller) -> None:
    sealed = lease(host, app).seal("x")
    host.call(app, "key.data_key", key="ssn", messages=5)
    open_one(host, app, sealed)
    host.call(host.admin, "key.rotate", key="ssn")
    shown = host.call(host.admin, "key.show", key="ssn")
    old, new = shown.usage
    assert (old.data_keys, old.messages_at_most, old.values_rewrapped) == (2, 2**24 + 5, 0)
    assert old.last_opened == int(host.clock()) // 3600 * 3600
    assert (new.data_keys, new.messages_at_most, new.last_opened) == (0, 0, None)
    assert any("offline" in text for text in shown.not_known)


# --- crashes ---


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        ("key.create", {"key": "other", "purpose": "seal"}),
        ("key.rotate", {"key": "ssn"}),
        ("key.rotate", {"key": "ssn", "activate_at": 1_900_000_000}),
        ("key.state", {"kid": "ssn.1", "state": "suspended"}),
        ("key.schedule", {"key": "ssn", "rotate_seconds": DAY, "deactivate_at": 1_900_000_000}),
        ("key.destroy", {"kid": "ssn.1"}),
    ],
)
def test_an_act_that_crashes_at_any_step_has_done_nothing(
    host: HostWorld, app: Caller, monkeypatch: pytest.MonkeyPatch, op: str, payload: dict[str, Any]
) -> None:
    tables = ("keys", "key_versions", "key_usage", "audit")
    died = crash_at_every_step(monkeypatch, host, lambda: host.call(host.admin, op, **payload), *tables)
    assert died >= 2


def test_a_scheduled_round_that_crashes_at_any_step_is_done_by_the_next(
    host: HostWorld, app: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.call(host.admin, "key.schedule", key="ssn", rotate_seconds=DAY)
    host.call(host.admin, "key.rotate", key="ssn")
    host.call(host.admin, "key.destroy", kid="ssn.1")
    host.clock.now += 8 * DAY
    died = crash_at_every_step(
        monkeypatch, host, scheduler(host).round, "keys", "key_versions", "key_usage", "audit"
    )
    assert died >= 4
    assert versions(host) == {"ssn.1": "destroyed", "ssn.2": "deactivated", "ssn.3": "active"}


def test_material_is_in_no_answer_of_an_officers_act(host: HostWorld, app: Caller) -> None:
    issued = host.call(app, "key.data_key", key="ssn")
    host.call(host.admin, "key.rotate", key="ssn")
    answers = repr(
        [
            host.call(host.admin, "key.show", key="ssn"),
            move(host, "ssn.1", "compromised"),
            host.call(host.admin, "key.destroy", kid="ssn.1"),
        ]
    )
    assert issued.dek not in answers
    assert jose.b64url_decode(issued.dek).hex() not in answers


def test_a_tenant_can_put_destruction_under_quorum(host: HostWorld, app: Caller) -> None:
    approver = host.principal("ann", ("approve", "act/*"), kind="person")
    host.call(host.admin, "quorum.set", act="key.destroy", approvals=1)
    with pytest.raises(QuorumNeededError) as waiting:
        host.call(host.admin, "key.destroy", kid="ssn.1")
    assert versions(host) == {"ssn.1": "active"}
    host.call(approver, "proposal.approve", proposal=waiting.value.proposal_id)
    # The approval is of this very act, not of a shorter way back.
    with pytest.raises(QuorumNeededError):
        host.call(host.admin, "key.destroy", kid="ssn.1", wait_seconds=8 * DAY)
    assert host.call(host.admin, "key.destroy", kid="ssn.1").destroy_at == int(host.clock()) + 7 * DAY
