"""The state machine of key versions, pair by pair."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError
from cloister_host.keymanager.lifecycle import (
    STATES,
    IllegalTransitionError,
    Life,
    State,
)

NOW = 1_800_000_000

# NIST SP 800-57 part 1 revision 5, section 7: transitions 2 to 15, written out once more.
LEGAL: set[tuple[State, State]] = {
    ("pre_activation", "destroyed"),
    ("pre_activation", "compromised"),
    ("pre_activation", "active"),
    ("active", "destroyed"),
    ("active", "compromised"),
    ("active", "suspended"),
    ("active", "deactivated"),
    ("suspended", "destroyed"),
    ("suspended", "active"),
    ("suspended", "compromised"),
    ("suspended", "deactivated"),
    ("deactivated", "compromised"),
    ("deactivated", "destroyed"),
    ("compromised", "destroyed"),
}


def life(state: State) -> Life:
    return Life(state=state, activate_at=NOW + 100 if state == "pre_activation" else NOW - 100)


@pytest.mark.parametrize(("start", "end"), list(product(STATES, STATES)))
def test_a_transition_is_made_if_and_only_if_sp_800_57_has_it(start: State, end: State) -> None:
    before = life(start)
    if end == "destroyed":
        # Through a waiting period, at the end of which it is so by itself.
        if (start, end) in LEGAL:
            doomed = before.doomed(now=NOW, wait_seconds=10)
            assert doomed.state_at(NOW + 9) == start
            assert doomed.state_at(NOW + 10) == "destroyed"
        else:
            with pytest.raises(IllegalTransitionError):
                before.doomed(now=NOW, wait_seconds=10)
        with pytest.raises(IllegalTransitionError):
            before.moved(end, now=NOW)
    elif (start, end) in LEGAL or (start == end and start in {"suspended", "compromised"}):
        assert before.moved(end, now=NOW).state_at(NOW) == end
    else:
        with pytest.raises(IllegalTransitionError):
            before.moved(end, now=NOW)


@pytest.mark.parametrize(
    ("state", "accepted", "protects", "processes", "rescues"),
    [
        ("pre_activation", False, False, False, False),
        ("active", False, True, True, True),
        ("suspended", False, False, False, False),
        ("suspended", True, False, True, True),
        ("deactivated", False, False, True, True),
        ("compromised", False, False, False, True),
        ("compromised", True, False, True, True),
        ("destroyed", False, False, False, False),
    ],
)
def test_what_each_state_allows(
    state: State, accepted: bool, protects: bool, processes: bool, rescues: bool
) -> None:
    found = Life(
        state=state,
        activate_at=NOW + 100 if state == "pre_activation" else NOW - 100,
        processing_accepted=accepted,
    )
    assert (found.protects(NOW), found.processes(NOW), found.rescues(NOW)) == (protects, processes, rescues)


@pytest.mark.parametrize("state", [state for state in STATES if state != "destroyed"])
def test_nothing_works_in_the_waiting_period_and_the_way_back_ends_with_it(state: State) -> None:
    before = life(state)
    doomed = before.doomed(now=NOW, wait_seconds=10)
    assert not any((doomed.protects(NOW), doomed.processes(NOW), doomed.rescues(NOW)))
    with pytest.raises(IllegalTransitionError):
        doomed.moved("compromised", now=NOW + 1)
    with pytest.raises(IllegalTransitionError):
        doomed.rescheduled(now=NOW + 1, deactivate_at=NOW + 50)
    with pytest.raises(IllegalTransitionError):
        doomed.doomed(now=NOW + 1, wait_seconds=1)
    assert doomed.spared(now=NOW + 9) == before
    with pytest.raises(IllegalTransitionError):
        doomed.spared(now=NOW + 10)
    with pytest.raises(IllegalTransitionError):
        before.spared(now=NOW)


def test_periods_end_by_themselves() -> None:
    found = Life.begin(now=NOW, activate_at=NOW + 10, active_seconds=20, recipient_seconds=30)
    states = {0: "pre_activation", 9: "pre_activation", 10: "active", 29: "active", 30: "deactivated"}
    assert {after: found.state_at(NOW + after) for after in states} == states
    uses = [(found.protects(NOW + t), found.processes(NOW + t)) for t in (9, 10, 29, 30, 59, 60)]
    assert uses == [(False, False), (True, True), (True, True), (False, True), (False, True), (False, False)]


def test_a_recipients_period_begins_when_protection_ended_early() -> None:
    found = Life.begin(now=NOW, active_seconds=1000, recipient_seconds=30).moved("deactivated", now=NOW + 5)
    assert found.processes(NOW + 34)
    assert not found.processes(NOW + 35)


def test_a_suspended_version_is_deactivated_when_its_period_ends() -> None:
    found = Life.begin(now=NOW, active_seconds=20).moved("suspended", now=NOW + 5, accept_processing=True)
    assert found.state_at(NOW + 19) == "suspended"
    assert found.state_at(NOW + 20) == "deactivated"
    with pytest.raises(IllegalTransitionError):
        found.moved("active", now=NOW + 20)


def test_the_risk_of_processing_is_accepted_for_one_stay_in_a_state() -> None:
    suspended = life("active").moved("suspended", now=NOW, accept_processing=True)
    assert suspended.processes(NOW)
    assert not suspended.moved("suspended", now=NOW).processes(NOW)
    assert not suspended.moved("compromised", now=NOW).processes(NOW)
    with pytest.raises(ConfigurationError):
        suspended.moved("active", now=NOW, accept_processing=True)


@pytest.mark.parametrize(
    ("state", "times"),
    [
        ("active", {"activate_at": NOW + 5}),
        ("deactivated", {"deactivate_at": NOW + 5}),
        ("compromised", {"deactivate_at": NOW + 5}),
        ("destroyed", {"deactivate_at": NOW + 5}),
        ("pre_activation", {"activate_at": NOW}),
        ("pre_activation", {"activate_at": NOW + 5, "deactivate_at": NOW + 5}),
        ("active", {"deactivate_at": NOW}),
    ],
)
def test_times_that_are_over_or_the_wrong_way_round_are_refused(state: State, times: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        life(state).rescheduled(now=NOW, **times)


ACTS = st.sampled_from(["active", "suspended", "deactivated", "compromised", "doom", "spare", "wait"])


@given(st.lists(st.tuples(ACTS, st.integers(0, 50)), max_size=12), st.integers(1, 60))
def test_no_walk_leaves_the_graph_or_comes_back_from_destruction(
    acts: list[tuple[str, int]], period: int
) -> None:
    found, now = Life.begin(now=NOW, activate_at=NOW + 10, active_seconds=period), NOW
    gone = False
    for act, seconds in acts:
        now += seconds
        before = found.state_at(now)
        try:
            if act == "doom":
                found = found.doomed(now=now, wait_seconds=20)
            elif act == "spare":
                found = found.spared(now=now)
            elif act != "wait":
                found = found.moved(act, now=now)  # type: ignore[arg-type]
                assert (before, act) in LEGAL or before == act
        except CloisterError:
            pass
        gone = gone or found.state_at(now) == "destroyed"
        if gone:
            assert found.state_at(now) == "destroyed"
            assert not found.processes(now)
        # Writing down what time has done changes nothing.
        assert found.settled(now).state_at(now) == found.state_at(now)
