"""Roles, groups and conditions: what counts, what never does, and why."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError, QuorumNeededError
from cloister_host.identity.caller import Caller
from cloister_host.policy.actions import ACTIONS, forbidden_to
from cloister_host.policy.conditions import Conditions, Facts, check_conditions, unmet
from cloister_host.policy.roles import ROLES
from support.host_world import HostWorld, caller

DIGEST = "ab" * 32


@pytest.fixture
def app(host: HostWorld) -> Caller:
    return host.principal("app")


def holds(host: HostWorld, who: Caller, action: str, resource: str, **more: Any) -> bool:
    with host.store.begin() as tx:
        return host.services.grants.holds(tx, who, action, resource, **more)


def grant(host: HostWorld, action: str, resource: str, principal: str = "app", **conditions: Any) -> None:
    payload = {"principal": principal, "action": action, "resource": resource, "conditions": conditions}
    host.call(host.admin, "grant.create", **payload)


# --- roles --------------------------------------------------------------------------------------------


def test_a_role_grants_its_actions_and_no_others(host: HostWorld, app: Caller) -> None:
    grant(host, "role:tokenizer", "*")
    held = {action for action, noun in ACTIONS.items() if holds(host, app, action, f"{noun}/x")}
    assert held == set(ROLES["tokenizer"])


def test_a_role_on_one_resource_is_on_no_other(host: HostWorld, app: Caller) -> None:
    grant(host, "role:key-officer", "key/ssn")
    assert holds(host, app, "key.manage", "key/ssn")
    assert not holds(host, app, "key.manage", "key/pin")


def test_every_action_of_a_role_exists_and_none_shows_plaintext() -> None:
    for actions in ROLES.values():
        assert set(actions) <= ACTIONS.keys()
        assert not {"decrypt", "unwrap", "detokenize", "secret.read", "approve"} & set(actions)


@pytest.mark.parametrize(
    ("action", "resource", "kind"),
    [
        ("role:nobody", "*", "service"),
        ("role:", "*", "service"),
        ("role:invoker", "key/ssn", "service"),
        ("role:admin", "*", "faas"),
        ("role:key-officer", "*", "faas"),
        ("role:invoker", "*", "function"),
    ],
)
def test_a_role_that_cannot_be_meant_is_refused(
    host: HostWorld, action: str, resource: str, kind: Any
) -> None:
    if kind != "function":
        host.principal("it", kind=kind)
    name = f"function:{DIGEST}" if kind == "function" else "it"
    with pytest.raises(ConfigurationError):
        grant(host, action, resource, name)


def test_a_role_gives_a_faas_principal_nothing_it_may_never_do(host: HostWorld) -> None:
    """Also through a group, whose members are not looked at when it is granted something."""
    who = host.principal("lambda", kind="faas")
    host.call(host.admin, "group.create", group="admins")
    host.call(host.admin, "group.add", group="admins", principal="lambda")
    grant(host, "role:admin", "*", "group:admins")
    grant(host, "decrypt", "*", "group:admins")
    held = {action for action, noun in ACTIONS.items() if holds(host, who, action, f"{noun}/x")}
    assert held
    assert not {action for action in held if forbidden_to("faas", action)}


# --- groups -------------------------------------------------------------------------------------------


def test_members_hold_what_their_group_is_granted_until_they_leave(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "group.create", group="tellers")
    grant(host, "seal", "key/ssn", "group:tellers")
    assert not holds(host, app, "seal", "key/ssn")
    host.call(host.admin, "group.add", group="tellers", principal="app")
    assert holds(host, app, "seal", "key/ssn")
    assert host.call(host.admin, "group.list").groups[0].members == ["app"]
    host.call(host.admin, "group.remove", group="tellers", principal="app")
    assert not holds(host, app, "seal", "key/ssn")


def test_signing_in_brings_the_groups_of_the_moment(host: HostWorld) -> None:
    key = host.call(host.admin, "principal.create", principal="teller", kind="person").api_key
    host.call(host.admin, "group.create", group="tellers")
    host.call(host.admin, "group.add", group="tellers", principal="teller")
    grant(host, "seal", "key/ssn", "group:tellers")
    assert holds(host, host.authenticate(key), "seal", "key/ssn")
    host.call(host.admin, "group.remove", group="tellers", principal="teller")
    assert not holds(host, host.authenticate(key), "seal", "key/ssn")


def test_a_group_that_was_deleted_leaves_nothing_to_a_later_one(host: HostWorld, app: Caller) -> None:
    for _ in range(2):
        host.call(host.admin, "group.create", group="tellers")
        assert not holds(host, app, "seal", "key/ssn")
        grant(host, "seal", "key/ssn", "group:tellers")
        assert not holds(host, app, "seal", "key/ssn")
        host.call(host.admin, "group.add", group="tellers", principal="app")
        assert holds(host, app, "seal", "key/ssn")
        host.call(host.admin, "group.delete", group="tellers")


def test_a_function_has_none_of_its_callers_groups(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "group.create", group="tellers")
    host.call(host.admin, "group.add", group="tellers", principal="app")
    grant(host, "seal", "*", "group:tellers")
    assert not holds(host, replace(app, groups=("tellers",)).as_function(DIGEST), "seal", "key/ssn")


def test_groups_are_managed_by_right_and_within_bounds(host: HostWorld, app: Caller) -> None:
    with pytest.raises(DeniedError):
        host.call(app, "group.create", group="mine")
    for number in range(16):
        host.call(host.admin, "group.create", group=f"g{number}")
        host.call(host.admin, "group.add", group=f"g{number}", principal="app")
    host.call(host.admin, "group.create", group="one-more")
    with pytest.raises(LimitError):
        host.call(host.admin, "group.add", group="one-more", principal="app")
    for op, payload in (
        ("group.add", {"group": "absent", "principal": "app"}),
        ("group.add", {"group": "g1", "principal": "absent"}),
        ("group.remove", {"group": "one-more", "principal": "app"}),
        ("group.delete", {"group": "absent"}),
        ("grant.create", {"principal": "group:absent", "action": "seal", "resource": "*"}),
    ):
        with pytest.raises(ConfigurationError):
            host.call(host.admin, op, **payload)


def test_joining_a_group_of_approvers_needs_the_quorum(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "group.create", group="board")
    grant(host, "approve", "act/*", "group:board")
    for name in ("ann", "bob"):
        host.principal(name, kind="person")
        host.call(host.admin, "group.add", group="board", principal=name)
    host.call(host.admin, "quorum.set", act="key.destroy", approvals=2)
    with pytest.raises(QuorumNeededError) as caught:
        host.call(host.admin, "group.add", group="board", principal="app")
    proposal = caught.value.proposal_id
    for name in ("ann", "bob"):
        shown = host.call(caller(name), "proposal.approve", proposal=proposal)
    assert (shown.act, shown.state) == ("quorum.change", "approved")
    host.call(host.admin, "group.add", group="board", principal="app")


# --- conditions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "good", "bad"),
    [
        ({"purposes": ["fraud", "audit"]}, {"purpose": "fraud"}, [{"purpose": ""}, {"purpose": "fraud "}]),
        (
            {"claims": {"sub": "arn", "x": {"y": True}}},
            {"claims": {"sub": "arn", "x": {"y": True}, "more": 1}},
            [{"claims": {}}, {"claims": {"sub": "arn", "x": {"y": 1}}}, {"claims": {"sub": "arn"}}],
        ),
    ],
    ids=["purpose", "claims"],
)
def test_what_the_caller_shows_has_to_meet_the_condition(
    host: HostWorld, app: Caller, conditions: Any, good: Any, bad: Any
) -> None:
    grant(host, "decrypt", "key/ssn", **conditions)
    assert holds(host, replace(app, **good), "decrypt", "key/ssn")
    for one in ({}, *bad):
        assert not holds(host, replace(app, **one), "decrypt", "key/ssn")


def test_a_grant_counts_in_its_time_only_and_stays_over_when_the_clock_is_set_back(
    host: HostWorld, app: Caller
) -> None:
    now = int(host.clock.now)
    grant(host, "decrypt", "key/ssn", not_before=now + 10, not_after=now + 20)
    seen = []
    for host.clock.now in (now, now + 9, now + 10, now + 19, now + 20, now + 15):
        seen.append(holds(host, app, "decrypt", "key/ssn"))
    assert seen == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("hours", "days", "at", "counts"),
    [
        ("08:00-18:00", (), "2027-01-15T08:00", True),
        ("08:00-18:00", (), "2027-01-15T17:59", True),
        ("08:00-18:00", (), "2027-01-15T18:00", False),
        ("22:00-06:00", (), "2027-01-15T23:00", True),
        ("22:00-06:00", (), "2027-01-15T05:59", True),
        ("22:00-06:00", (), "2027-01-15T12:00", False),
        ("", ("fri",), "2027-01-15T12:00", True),
        ("", ("sat", "sun"), "2027-01-15T12:00", False),
    ],
)
def test_windows_are_by_the_day_in_utc(hours: str, days: Any, at: str, counts: bool) -> None:
    moment = dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC).timestamp()
    facts = Facts(caller=caller(), now=moment, digest=str)
    assert (unmet(Conditions(hours=hours, days=days), facts) is None) is counts


def test_a_grant_for_one_digest_is_for_no_other(host: HostWorld, app: Caller) -> None:
    grant(host, "invoke", "function/f", functions=[DIGEST])
    assert holds(host, app, "invoke", "function/f", digest=lambda: DIGEST)
    assert not holds(host, app, "invoke", "function/f", digest=lambda: "cd" * 32)
    assert not holds(host, app, "invoke", "function/f")


@pytest.mark.parametrize(
    "conditions",
    [
        {"hours": "8-18"},
        {"hours": "24:00-25:00"},
        {"days": ["monday"]},
        {"not_before": 20, "not_after": 10},
        {"not_after": -1},
        {"purposes": ["Fraud!"]},
        {"purposes": [f"p{n}" for n in range(40)]},
        {"functions": ["abc"]},
        {"claims": {"x": [1]}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_conditions_that_cannot_be_meant_are_refused(host: HostWorld, app: Caller, conditions: Any) -> None:
    with pytest.raises(ConfigurationError):
        grant(host, "decrypt", "key/ssn", **conditions)
    assert host.call(host.admin, "grant.list", principal="app").grants == []


def test_conditions_are_never_loosened_in_passing(host: HostWorld, app: Caller) -> None:
    grant(host, "decrypt", "key/ssn", purposes=["fraud"])
    grant(host, "decrypt", "key/ssn", purposes=["fraud"])
    with pytest.raises(ConfigurationError, match="other conditions"):
        grant(host, "decrypt", "key/ssn")
    assert not holds(host, app, "decrypt", "key/ssn")


def test_a_condition_edited_with_a_pen_is_found(host: HostWorld, app: Caller) -> None:
    grant(host, "decrypt", "key/ssn", purposes=["fraud"])
    host.pen("""UPDATE grants SET content = replace(content, '"fraud"', '"other"') WHERE id LIKE 'app%'""")
    with pytest.raises(CloisterError, match="outside the host"):
        holds(host, app, "decrypt", "key/ssn")


def test_the_purpose_is_recorded(host: HostWorld, app: Caller) -> None:
    grant(host, "key.read", "key/*", purposes=["audit"])
    host.call(replace(app, purpose="audit"), "key.list")
    assert host.audited("key.list")[-1].detail["purpose"] == "audit"
    with pytest.raises(DeniedError):
        host.call(replace(app, purpose="other"), "key.list")
    assert host.audited("key.read")[-1].detail["purpose"] == "other"


texts = st.text(max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    conditions=st.builds(
        Conditions,
        not_before=st.integers(-5, 2**40),
        not_after=st.integers(-5, 2**40),
        hours=texts | st.just("08:00-18:00"),
        purposes=st.lists(texts, max_size=2).map(tuple),
        functions=st.lists(texts | st.just(DIGEST), max_size=2).map(tuple),
        claims=st.dictionaries(texts, texts | st.integers() | st.none(), max_size=2),
    ),
    now=st.integers(0, 2**35),
)
def test_any_conditions_are_refused_or_answered(conditions: Conditions, now: int) -> None:
    facts = Facts(caller=caller(), now=now, digest=str)
    try:
        check_conditions(conditions)
    except ConfigurationError:
        return
    why = unmet(conditions, facts)
    # This caller shows nothing at all: whatever asks it for something is not met.
    assert why is not None or not (conditions.purposes or conditions.functions or conditions.claims)


# --- explanations -------------------------------------------------------------------------------------


def explained(host: HostWorld, **payload: Any) -> Any:
    return host.call(host.admin, "grant.explain", **{"principal": "app", **payload})


def test_an_explanation_says_which_grant_counts(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "group.create", group="tellers")
    host.call(host.admin, "group.add", group="tellers", principal="app")
    grant(host, "role:tokenizer", "policy/*", "group:tellers")
    found = explained(host, action="tokenize", resource="policy/pins")
    assert (found.allowed, found.because) == (True, "group:tellers is granted role:tokenizer on policy/*")


def test_an_explanation_says_why_not(host: HostWorld, app: Caller) -> None:
    asked = {"action": "decrypt", "resource": "key/ssn"}
    assert explained(host, **asked).because == "nothing grants decrypt to app or a group of it"
    grant(host, "decrypt", "key/pin")
    assert explained(host, **asked).because == "no grant counts: it is on another resource"
    grant(host, "decrypt", "key/ssn", purposes=["fraud"])
    found = explained(host, **asked)
    assert (found.allowed, found.because) == (False, "no grant counts: the purpose has to be fraud")
    assert explained(host, **asked, purpose="fraud").allowed


def test_an_explanation_names_the_rule_above_grants(host: HostWorld) -> None:
    host.principal("lambda", kind="faas")
    found = explained(host, principal="lambda", action="decrypt", resource="key/ssn")
    assert found.because == "decrypt is never allowed to a principal of kind faas, whatever is granted"


def test_an_explanation_never_shows_a_claims_value(host: HostWorld, app: Caller) -> None:
    grant(host, "decrypt", "key/ssn", claims={"sub": "arn:wanted"})
    found = explained(host, action="decrypt", resource="key/ssn", claims={"sub": "arn:shown"})
    assert "arn:shown" not in repr(found)
    assert found.because == "no grant counts: the claim sub is absent or another"


def test_explaining_needs_a_right_of_its_own(host: HostWorld, app: Caller) -> None:
    for name in ("app", "nobody"):
        with pytest.raises(DeniedError):
            host.call(app, "grant.explain", principal=name, action="seal", resource="*")
    auditor = host.principal("ann", ("role:auditor", "*"), kind="person")
    assert not host.call(auditor, "grant.explain", principal="app", action="seal", resource="*").allowed


@settings(max_examples=60, deadline=None)
@given(action=st.sampled_from(sorted(ACTIONS)), kind=st.sampled_from(["person", "service", "faas"]))
def test_an_explanation_and_the_check_never_differ(shared: HostWorld, action: str, kind: str) -> None:
    resource = f"{ACTIONS[action]}/x"
    asked = {"principal": f"it-{kind}", "action": action, "resource": resource}
    who = caller(f"it-{kind}", kind=kind)  # type: ignore[arg-type]
    assert shared.call(shared.admin, "grant.explain", **asked).allowed == holds(shared, who, action, resource)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> HostWorld:
    host = HostWorld(tmp_path_factory.mktemp("host"))
    host.call(host.admin, "group.create", group="all")
    for role in ROLES:
        grant(host, f"role:{role}", "*", "group:all")
    for kind in ("person", "service", "faas"):
        host.principal(f"it-{kind}", kind=kind)
        host.call(host.admin, "group.add", group="all", principal=f"it-{kind}")
    return host
