"""Tokens that hang on a tenant's key: its versions and states hold for them at once."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.errors import ConfigurationError, OpenError
from cloister_host.identity.caller import Caller
from support.host_world import HostWorld

SSNS = ["123-45-6789", "219-09-9999"]
PLANS: dict[str, dict[str, Any]] = {
    "ff1": {"plan": "ff1", "type": "ssn"},
    "vault": {"plan": "vault", "type": "ssn"},
    "lookup": {"plan": "vault", "type": "ssn", "deterministic": True},
    "hash": {"plan": "hash", "type": "ssn"},
}
BACK = ("ff1", "vault", "lookup")


@pytest.fixture
def app(host: HostWorld) -> Caller:
    host.call(host.admin, "key.create", key="people", purpose="tokenize")
    for name, document in PLANS.items():
        host.call(host.admin, "policy.create", policy=name, key="people", **document)
    return host.principal("app", *[(a, "policy/*") for a in ("tokenize", "detokenize", "retokenize")])


def tokenize(host: HostWorld, app: Caller, policy: str) -> Any:
    return host.call(app, "token.tokenize", policy=policy, values=SSNS)


def detokenize(host: HostWorld, app: Caller, policy: str, tokens: list[str], **more: Any) -> list[str | None]:
    return list(host.call(app, "token.detokenize", policy=policy, tokens=tokens, **more).values)


def state(host: HostWorld, to: str, **more: Any) -> None:
    host.call(host.admin, "key.state", kid="people.1", state=to, **more)


def unreadable(host: HostWorld, app: Caller, policy: str, tokens: list[str]) -> bool:
    try:
        return detokenize(host, app, policy, tokens, key_version=1) == [None] * len(tokens)
    except OpenError:
        return True


@pytest.mark.parametrize("policy", BACK)
def test_tokens_come_back_and_outlive_a_rotation(host: HostWorld, app: Caller, policy: str) -> None:
    old = tokenize(host, app, policy)
    assert old.key_version == 1
    host.call(host.admin, "key.rotate", key="people")
    new = tokenize(host, app, policy)
    assert new.key_version == 2
    assert (new.tokens == old.tokens) is (policy == "lookup")
    assert detokenize(host, app, policy, old.tokens, key_version=1) == SSNS
    assert detokenize(host, app, policy, new.tokens) == SSNS
    moved = host.call(app, "token.retokenize", policy=policy, tokens=old.tokens, key_version=1)
    assert detokenize(host, app, policy, moved.tokens) == SSNS


@pytest.mark.parametrize("policy", PLANS)
@pytest.mark.parametrize("to", ["suspended", "deactivated", "compromised"])
def test_no_token_is_made_under_a_key_that_may_not_protect(
    host: HostWorld, app: Caller, policy: str, to: str
) -> None:
    state(host, to)
    with pytest.raises(ConfigurationError, match="present state"):
        tokenize(host, app, policy)


@pytest.mark.parametrize("policy", BACK)
@pytest.mark.parametrize(
    ("to", "accept", "opens"),
    [
        ("suspended", False, False),
        ("suspended", True, True),
        ("deactivated", False, True),
        ("compromised", False, False),
        ("compromised", True, True),
    ],
)
def test_a_state_holds_for_tokens_that_are_out(  # noqa: PLR0917 (a table)
    host: HostWorld, app: Caller, policy: str, to: str, accept: bool, opens: bool
) -> None:
    tokens = tokenize(host, app, policy).tokens
    state(host, to, accept_processing=accept)
    assert unreadable(host, app, policy, tokens) is not opens


@pytest.mark.parametrize("policy", BACK)
def test_tokens_of_a_compromised_version_are_moved_unseen(host: HostWorld, app: Caller, policy: str) -> None:
    tokens = tokenize(host, app, policy).tokens
    host.call(host.admin, "policy.create", policy="other", plan="vault", type="ssn")
    host.call(host.admin, "key.rotate", key="people")
    state(host, "compromised")
    assert unreadable(host, app, policy, tokens)
    moved = host.call(app, "token.retokenize", policy=policy, to="other", tokens=tokens, key_version=1)
    assert detokenize(host, app, "other", moved.tokens) == SSNS


@pytest.mark.parametrize("policy", BACK)
def test_destroying_the_key_destroys_what_is_behind_the_tokens(
    host: HostWorld, app: Caller, policy: str
) -> None:
    tokens = tokenize(host, app, policy).tokens
    host.call(host.admin, "key.destroy", kid="people.1")
    assert unreadable(host, app, policy, tokens)
    host.call(host.admin, "key.restore", kid="people.1")
    assert detokenize(host, app, policy, tokens) == SSNS
    host.call(host.admin, "key.destroy", kid="people.1")
    host.clock.now += 8 * 86_400
    assert unreadable(host, app, policy, tokens)


def test_a_value_is_not_given_a_second_token_because_its_first_cannot_be_read(
    host: HostWorld, app: Caller
) -> None:
    tokens = tokenize(host, app, "lookup").tokens
    host.call(host.admin, "key.rotate", key="people")
    state(host, "compromised")
    with pytest.raises(ConfigurationError, match="has a token already"):
        tokenize(host, app, "lookup")
    state(host, "compromised", accept_processing=True)
    assert tokenize(host, app, "lookup").tokens == tokens


def test_one_key_makes_different_tokens_for_different_policies(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "policy.create", policy="again", key="people", **PLANS["ff1"])
    assert tokenize(host, app, "again").tokens != tokenize(host, app, "ff1").tokens


@pytest.mark.parametrize("key", ["nothing", "values"])
def test_a_policy_hangs_on_a_key_for_tokens_only(host: HostWorld, key: str) -> None:
    host.call(host.admin, "key.create", key="values", purpose="seal")
    with pytest.raises(ConfigurationError):
        host.call(host.admin, "policy.create", policy="p", key=key, **PLANS["ff1"])


def test_a_policy_with_a_key_is_rotated_by_rotating_the_key(host: HostWorld, app: Caller) -> None:
    with pytest.raises(ConfigurationError, match="hang on a key"):
        host.call(host.admin, "policy.rotate", policy="ff1")


def test_a_key_for_tokens_seals_nothing(host: HostWorld, app: Caller) -> None:
    who = host.principal("sealer", ("seal", "key/*"), ("encrypt", "key/*"))
    for op, more in (("key.data_key", {}), ("key.encrypt", {"data": ["eA"]})):
        with pytest.raises(ConfigurationError, match="is for tokenize"):
            host.call(who, op, key="people", **more)


def test_a_policy_is_shown_and_checked_without_being_kept(host: HostWorld) -> None:
    checked = host.call(host.admin, "policy.check", **PLANS["ff1"])
    assert (checked.plan, checked.domain) == ("ff1", "1000000000")
    with pytest.raises(ConfigurationError, match="10,000"):
        host.call(host.admin, "policy.check", plan="ff1", type="pin", length=4)
    assert host.call(host.admin, "policy.list").policies == []
    host.call(host.admin, "policy.create", policy="ssn", **PLANS["ff1"])
    shown = host.call(host.admin, "policy.show", policy="ssn")
    assert (shown.domain, shown.document.type) == ("1000000000", "ssn")
    with pytest.raises(ConfigurationError, match="no such policy"):
        host.call(host.admin, "policy.show", policy="nothing")
