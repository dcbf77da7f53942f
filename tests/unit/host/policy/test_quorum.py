"""n of m approvals: bound to the exact act, by others, in time, once; the rules guard themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError, QuorumNeededError
from cloister_host.identity.caller import Caller
from cloister_host.policy import quorum as quorum_module
from cloister_host.policy.acts import ACTS
from cloister_host.policy.quorum import Rule, Rules, request_digest
from support.host_world import HostWorld, caller

ANN, BOB, CY = (caller(name) for name in ("ann", "bob", "cy"))
POLICY = {"policy": "pins", "plan": "vault", "alphabet": "0123456789", "length": 12}


@pytest.fixture
def acme(host: HostWorld) -> HostWorld:
    """Three approvers; the change of policies needs two of them."""
    for name in ("ann", "bob", "cy"):
        host.principal(name, ("approve", "act/*"), kind="person")
    host.principal("app")
    host.call(host.admin, "quorum.set", act="policy.change", approvals=2)
    return host


def proposed(host: HostWorld, who: Caller, op: str, /, **payload: Any) -> str:
    with pytest.raises(QuorumNeededError) as caught:
        host.call(who, op, **payload)
    assert caught.value.proposal_id in caught.value.hint
    assert not caught.value.retryable
    return caught.value.proposal_id


def approve(host: HostWorld, proposal: str, *who: Caller) -> None:
    for one in who:
        host.call(one, "proposal.approve", proposal=proposal)


GRANT = {"principal": "app", "action": "seal", "resource": "*"}


def test_an_act_waits_for_its_approvals_and_then_happens(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    assert acme.call(acme.admin, "grant.list", principal="app").grants == []
    approve(acme, proposal, ANN)
    assert proposed(acme, acme.admin, "grant.create", **GRANT) == proposal
    approve(acme, proposal, BOB)
    assert acme.call(acme.admin, "grant.create", **GRANT).action == "seal"
    shown = acme.call(ANN, "proposal.show", proposal=proposal)
    assert (shown.state, shown.approved_by) == ("executed", ["ann", "bob"])


def test_without_a_rule_nothing_waits(host: HostWorld) -> None:
    host.principal("app")
    assert host.call(host.admin, "grant.create", **GRANT)


def test_approvals_are_spent_by_the_act(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    acme.call(acme.admin, "grant.create", **GRANT)
    acme.call(acme.admin, "grant.delete", **GRANT)
    again = proposed(acme, acme.admin, "grant.create", **GRANT)
    assert again != proposal
    with pytest.raises(ConfigurationError, match="executed"):
        acme.call(CY, "proposal.approve", proposal=proposal)


def test_approvals_are_not_spent_if_the_act_fails(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    operation = acme.operations["grant.create"]

    def fail_after_the_act() -> None:
        with acme.store.begin() as tx:
            operation.handler(acme.admin, operation.parse(json.dumps(GRANT).encode()), tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_the_act()
    assert acme.call(acme.admin, "grant.create", **GRANT)


@pytest.mark.parametrize(
    "changed",
    [{"action": "wrap"}, {"resource": "key/ssn"}, {"principal": "ann"}],
    ids=["action", "resource", "principal"],
)
def test_an_approval_covers_no_other_request(acme: HostWorld, changed: dict[str, str]) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    assert proposed(acme, acme.admin, "grant.create", **{**GRANT, **changed}) != proposal


def test_an_approval_covers_no_other_principal(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    two = {"principal": "ann", "action": "grant.manage", "resource": "*"}
    approve(acme, proposed(acme, acme.admin, "grant.create", **two), BOB, CY)
    acme.call(acme.admin, "grant.create", **two)
    proposed(acme, ANN, "grant.create", **GRANT)


def test_nobody_approves_what_they_asked_for(acme: HostWorld) -> None:
    two = {"principal": "ann", "action": "grant.manage", "resource": "*"}
    approve(acme, proposed(acme, acme.admin, "grant.create", **two), BOB, CY)
    acme.call(acme.admin, "grant.create", **two)
    proposal = proposed(acme, ANN, "grant.create", **GRANT)
    with pytest.raises(DeniedError, match="themselves"):
        acme.call(ANN, "proposal.approve", proposal=proposal)
    approve(acme, proposal, BOB)
    proposed(acme, ANN, "grant.create", **GRANT)


def test_an_approval_by_the_asker_written_into_the_row_is_not_counted(acme: HostWorld) -> None:
    """Even if the row's MAC were the host's own."""
    proposal = quorum_module.Proposal(
        principal="ann",
        act="policy.change",
        resource="*",
        digest="",
        detail={},
        state="open",
        approved_by=("ann", "bob", "bob"),
        created_at=0,
        expires=2**40,
    )
    with acme.store.begin() as tx:
        assert acme.services.quorum.missing(tx, "acme", proposal) == 1


def test_one_approver_counts_once(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, ANN)
    assert acme.call(ANN, "proposal.show", proposal=proposal).missing == 1
    proposed(acme, acme.admin, "grant.create", **GRANT)


@pytest.mark.parametrize("end", ["disabled", "right taken back", "right ended"])
def test_who_may_no_longer_approve_does_not_count(acme: HostWorld, end: str) -> None:
    if end == "right ended":
        acme.call(acme.admin, "grant.delete", principal="bob", action="approve", resource="act/*")
        until = {"not_after": int(acme.clock.now) + 60}
        right = {"principal": "bob", "action": "approve", "resource": "act/*", "conditions": until}
        approve(acme, proposed(acme, acme.admin, "grant.create", **right), ANN, CY)
        acme.call(acme.admin, "grant.create", **right)
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    if end == "right ended":
        acme.clock.now += 60
    elif end == "disabled":
        acme.call(acme.admin, "principal.disable", principal="bob")
    else:
        acme.call(acme.admin, "grant.delete", principal="bob", action="approve", resource="act/*")
    proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, CY)
    assert acme.call(acme.admin, "grant.create", **GRANT)


def test_approving_needs_the_right_for_this_act(acme: HostWorld) -> None:
    approve_deploys = {"principal": "app", "action": "approve", "resource": "act/function.deploy"}
    approve(acme, proposed(acme, acme.admin, "grant.create", **approve_deploys), ANN, BOB)
    acme.call(acme.admin, "grant.create", **approve_deploys)
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    for who in (caller("app", kind="service"), acme.admin):
        with pytest.raises(DeniedError):
            acme.call(who, "proposal.approve", proposal=proposal)


def test_a_proposal_expires(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    acme.clock.now += 24 * 3600
    assert acme.call(ANN, "proposal.show", proposal=proposal).state == "expired"
    with pytest.raises(ConfigurationError, match="expired"):
        acme.call(CY, "proposal.approve", proposal=proposal)
    assert proposed(acme, acme.admin, "grant.create", **GRANT) != proposal


def test_a_proposal_from_the_future_is_not_open(acme: HostWorld) -> None:
    """The clock was set back: how old it is, nobody knows."""
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    acme.clock.now -= 3600
    assert proposed(acme, acme.admin, "grant.create", **GRANT) != proposal


def test_a_rejected_proposal_is_over(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    assert acme.call(CY, "proposal.reject", proposal=proposal).state == "rejected"
    assert proposed(acme, acme.admin, "grant.create", **GRANT) != proposal


def test_who_asked_can_withdraw_and_nobody_else_without_the_right(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    with pytest.raises(DeniedError):
        acme.call(caller("app", kind="service"), "proposal.reject", proposal=proposal)
    assert acme.call(acme.admin, "proposal.reject", proposal=proposal).ended_by == "admin"


def test_a_proposal_of_another_tenant_looks_like_none(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    for op in ("proposal.show", "proposal.approve", "proposal.reject"):
        said = set()
        for who, name in ((acme.other_admin, proposal), (ANN, "0" * 32 + "-00000001")):
            with pytest.raises(DeniedError) as caught:
                acme.call(who, op, proposal=name)
            said.add((str(caught.value), caught.value.code))
        assert len(said) == 1
    assert acme.call(acme.other_admin, "proposal.list").proposals == []


def test_proposals_are_seen_by_those_concerned_only(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    for who, sees in ((acme.admin, True), (ANN, True), (caller("app", kind="service"), False)):
        found = [one.proposal for one in acme.call(who, "proposal.list").proposals]
        assert found == ([proposal] if sees else [])


# --- the rules guard themselves -----------------------------------------------------------------------


@pytest.mark.parametrize("approvals", [0, 1, 3])
def test_changing_the_rules_needs_the_old_quorum(acme: HostWorld, approvals: int) -> None:
    change = {"act": "policy.change", "approvals": approvals}
    proposal = proposed(acme, acme.admin, "quorum.set", **change)
    approve(acme, proposal, ANN)
    proposed(acme, acme.admin, "quorum.set", **change)
    approve(acme, proposal, CY)
    rules = acme.call(acme.admin, "quorum.set", **change).rules
    assert [rule.approvals for rule in rules] == ([approvals] if approvals else [])


def test_a_rule_for_another_act_needs_the_strictest_rule_too(acme: HostWorld) -> None:
    proposed(acme, acme.admin, "quorum.set", act="function.deploy", approvals=1)


def test_making_an_approver_needs_the_strictest_rule(acme: HostWorld) -> None:
    approve(acme, proposed(acme, acme.admin, "quorum.set", act="function.deploy", approvals=3), ANN, BOB)
    acme.call(acme.admin, "quorum.set", act="function.deploy", approvals=3)
    puppet = {"principal": "app", "action": "approve", "resource": "act/*"}
    proposal = proposed(acme, acme.admin, "grant.create", **puppet)
    approve(acme, proposal, ANN, BOB)
    assert acme.call(ANN, "proposal.show", proposal=proposal).missing == 1
    proposed(acme, acme.admin, "grant.create", **puppet)


def test_an_administrator_cannot_become_an_approver_by_taking_its_key(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "principal.rotate_key", principal="ann")
    assert acme.call(ANN, "proposal.show", proposal=proposal).act == "quorum.change"
    assert acme.call(ANN, "principal.rotate_key", principal="ann").api_key


def test_taking_another_principals_key_is_a_change_of_policy(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "principal.rotate_key", principal="app")
    assert acme.call(ANN, "proposal.show", proposal=proposal).act == "policy.change"


def test_a_rule_that_could_never_be_met_is_refused(host: HostWorld) -> None:
    host.principal("ann", ("approve", "act/*"), kind="person")
    with pytest.raises(ConfigurationError, match="only 1 others"):
        host.call(host.admin, "quorum.set", act="key.destroy", approvals=2)
    host.principal("bob", ("approve", "act/key.destroy"), kind="person")
    with pytest.raises(ConfigurationError, match=r"quorum\.change"):
        host.call(host.admin, "quorum.set", act="key.destroy", approvals=2)
    assert host.call(host.admin, "quorum.show").rules == []


def test_taking_rights_away_never_waits(acme: HostWorld) -> None:
    approve_all = {"principal": "bob", "action": "approve", "resource": "act/*"}
    acme.call(acme.admin, "grant.delete", **approve_all)
    acme.call(acme.admin, "principal.disable", principal="cy")


@pytest.mark.parametrize("action", ["approve", "quorum.manage"])
def test_a_faas_principal_never_approves(host: HostWorld, action: str) -> None:
    host.principal("lambda", kind="faas")
    with pytest.raises(ConfigurationError, match="never granted"):
        host.grant("lambda", action, "act/*")


def test_rules_are_managed_and_seen_by_right(acme: HostWorld) -> None:
    app = caller("app", kind="service")
    with pytest.raises(DeniedError):
        acme.call(app, "quorum.set", act="key.destroy", approvals=0)
    with pytest.raises(DeniedError):
        acme.call(app, "quorum.show")
    assert [rule.act for rule in acme.call(ANN, "quorum.show").rules] == ["policy.change"]


def test_an_unknown_act_is_refused(host: HostWorld) -> None:
    with pytest.raises((ConfigurationError, DeniedError)):
        host.call(host.admin, "quorum.set", act="key.create", approvals=1)


def test_the_stricter_of_two_rules_holds() -> None:
    weak, strict = Rule(approvals=1, lifetime_seconds=300), Rule(approvals=3, lifetime_seconds=300)
    assert (
        Rules(rules={"grant.detokenize": weak, "policy.change": strict}).for_act("grant.detokenize") == strict
    )
    assert Rules(rules={"grant.detokenize": strict, "policy.change": weak}).for_act("policy.change") == weak
    assert Rules(rules={"policy.change": strict}).for_act("quorum.change") == strict
    assert Rules(rules={"policy.change": strict}).for_act("key.destroy") is None


# --- acts of other services ---------------------------------------------------------------------------


def test_detokenization_waits_for_exactly_these_tokens(host: HostWorld) -> None:
    for name in ("ann", "bob"):
        host.principal(name, ("approve", "act/*"), kind="person")
    host.call(host.admin, "policy.create", **POLICY)
    teller = host.principal("teller", ("tokenize", "*"), ("detokenize", "*"), kind="person")
    tokens = host.call(teller, "token.tokenize", policy="pins", values=["1234", "5678"]).tokens
    host.call(host.admin, "quorum.set", act="token.detokenize", approvals=1)
    proposal = proposed(host, teller, "token.detokenize", policy="pins", tokens=tokens[:1])
    approve(host, proposal, ANN)
    proposed(host, teller, "token.detokenize", policy="pins", tokens=tokens)
    assert host.call(teller, "token.detokenize", policy="pins", tokens=tokens[:1]).values == ["1234"]
    proposed(host, teller, "token.detokenize", policy="pins", tokens=tokens[:1])


def test_revoking_tokens_waits_for_exactly_these(host: HostWorld) -> None:
    host.principal("ann", ("approve", "act/*"), kind="person")
    host.call(host.admin, "policy.create", **POLICY)
    teller = host.principal("teller", ("tokenize", "*"), ("detokenize", "*"), kind="person")
    tokens = host.call(teller, "token.tokenize", policy="pins", values=["1234", "5678"]).tokens
    host.call(host.admin, "quorum.set", act="token.revoke", approvals=1)
    approve(host, proposed(host, host.admin, "token.revoke", policy="pins", tokens=tokens[:1]), ANN)
    proposed(host, host.admin, "token.revoke", policy="pins", tokens=tokens)
    assert host.call(teller, "token.detokenize", policy="pins", tokens=tokens).values == ["1234", "5678"]
    assert host.call(host.admin, "token.revoke", policy="pins", tokens=tokens[:1]).revoked == 1
    assert host.call(teller, "token.detokenize", policy="pins", tokens=tokens).values == [None, "5678"]


def test_destroying_a_secret_waits_for_exactly_this_version(host: HostWorld) -> None:
    host.principal("ann", ("approve", "act/*"), kind="person")
    for value in ("first", "second"):
        host.call(host.admin, "secret.put", secret="partner", value=value)
    host.call(host.admin, "quorum.set", act="secret.destroy", approvals=1)
    approve(host, proposed(host, host.admin, "secret.destroy", secret="partner", version=1), ANN)
    proposed(host, host.admin, "secret.destroy", secret="partner", version=2)
    host.call(host.admin, "secret.destroy", secret="partner", version=1)
    versions = host.call(host.admin, "secret.versions", secret="partner").versions
    assert [one.state for one in versions] == ["destroyed", "active"]


def test_a_grant_of_detokenize_and_a_token_policy_wait(host: HostWorld) -> None:
    for name in ("ann", "bob"):
        host.principal(name, ("approve", "act/*"), kind="person")
    host.principal("app", kind="person")
    host.call(host.admin, "quorum.set", act="grant.detokenize", approvals=1)
    host.call(host.admin, "policy.create", **POLICY)
    host.grant("app", "detokenize-masked", "*")
    proposed(host, host.admin, "grant.create", principal="app", action="detokenize", resource="*")
    approve(host, proposed(host, host.admin, "quorum.set", act="policy.change", approvals=1), ANN)
    host.call(host.admin, "quorum.set", act="policy.change", approvals=1)
    proposed(host, host.admin, "policy.create", **{**POLICY, "policy": "others"})


def test_taking_the_key_of_who_sees_values_is_as_grave_as_the_grant(host: HostWorld) -> None:
    for name in ("ann", "bob"):
        host.principal(name, ("approve", "act/*"), kind="person")
    host.principal("teller", ("detokenize", "policy/pins"), kind="person")
    host.principal("clerk", kind="person")
    host.call(host.admin, "group.create", group="tellers")
    host.grant("group:tellers", "detokenize", "*")
    host.call(host.admin, "group.add", group="tellers", principal="clerk")
    host.principal("app")
    host.call(host.admin, "quorum.set", act="grant.detokenize", approvals=1)
    for name in ("teller", "clerk"):
        proposal = proposed(host, host.admin, "principal.rotate_key", principal=name)
        assert host.call(ANN, "proposal.show", proposal=proposal).act == "grant.detokenize"
    assert host.call(host.admin, "principal.rotate_key", principal="app").api_key


# --- hostile use --------------------------------------------------------------------------------------


def test_a_principal_cannot_fill_the_store_with_proposals(
    acme: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum_module, "MAX_OPEN_PROPOSALS", 3)
    for number in range(3):
        proposed(acme, acme.admin, "grant.create", **{**GRANT, "resource": f"key/k{number}"})
    with pytest.raises(LimitError, match="too many open"):
        acme.call(acme.admin, "grant.create", **{**GRANT, "resource": "key/k4"})
    assert len(acme.call(ANN, "proposal.list").proposals) == 3


def test_old_proposals_are_forgotten(acme: HostWorld) -> None:
    old = proposed(acme, acme.admin, "grant.create", **GRANT)
    acme.clock.now += 40 * 24 * 3600
    new = proposed(acme, acme.admin, "grant.create", **{**GRANT, "resource": "key/ssn"})
    assert [one.proposal for one in acme.call(ANN, "proposal.list").proposals] == [new] != [old]


def test_a_rule_or_an_approval_written_with_a_pen_is_found(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    acme.pen(
        "UPDATE proposals SET content ="
        """ replace(content, '"approved_by":[]', '"approved_by":["ann","bob"]')"""
    )
    with pytest.raises(CloisterError, match="outside the host"):
        acme.call(acme.admin, "grant.create", **GRANT)
    acme.pen("""UPDATE quorum SET content = replace(content, '"approvals":2', '"approvals":0')""")
    with pytest.raises(CloisterError, match="outside the host"):
        acme.call(ANN, "proposal.show", proposal=proposal)


def test_every_step_is_audited(acme: HostWorld) -> None:
    proposal = proposed(acme, acme.admin, "grant.create", **GRANT)
    approve(acme, proposal, ANN, BOB)
    acme.call(acme.admin, "grant.create", **GRANT)
    for act, count in (
        ("proposal.create", 1),
        ("policy.change", 1),
        ("proposal.approve", 2),
        ("proposal.execute", 1),
    ):
        entries = [e for e in acme.audited(act) if e.detail.get("proposal") == proposal]
        assert len(entries) == count, act


def test_the_id_tells_nobody_without_the_root_key_what_was_asked(acme: HostWorld, tmp_path: Any) -> None:
    """The same request in another deployment has another id."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = HostWorld(folder)
    for name in ("ann", "bob", "cy"):
        other.principal(name, ("approve", "act/*"), kind="person")
    other.principal("app")
    other.call(other.admin, "quorum.set", act="policy.change", approvals=2)
    ids = {proposed(world, world.admin, "grant.create", **GRANT) for world in (acme, other)}
    other.close()
    assert len(ids) == 2


def test_a_digest_fills_in_defaults(acme: HostWorld) -> None:
    operation = acme.operations["quorum.set"]
    short = operation.parse(b'{"act":"key.destroy","approvals":1}')
    full = operation.parse(b'{"lifetime_seconds":86400,"approvals":1,"act":"key.destroy"}')
    other = operation.parse(b'{"act":"key.destroy","approvals":2}')
    assert request_digest("quorum.set", short) == request_digest("quorum.set", full)
    assert request_digest("quorum.set", short) != request_digest("quorum.set", other)
    assert request_digest("quorum.set", short) != request_digest("quorum.show", short)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(proposal=st.text(max_size=60), act=st.sampled_from(sorted(ACTS)) | st.text(max_size=20))
def test_any_id_and_any_act_give_our_errors_only(acme: HostWorld, proposal: str, act: str) -> None:
    for op, payload in (
        ("proposal.approve", {"proposal": proposal}),
        ("quorum.set", {"act": act, "approvals": 1}),
    ):
        try:
            acme.call(ANN, op, **payload)
        except CloisterError:
            continue
        pytest.fail("nothing of this may succeed")
