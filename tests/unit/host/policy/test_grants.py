"""Deny by default; and what no grant can allow."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from cloister.errors import ConfigurationError, DeniedError
from cloister_host.identity.caller import Caller, Kind, Subject
from cloister_host.policy.actions import ACTIONS, check_grantable, forbidden_to
from cloister_host.policy.grants import GRANTS, Grant, grant_id
from cloister_host.store import TamperedError
from support.host_world import HostWorld


def require(host: HostWorld, who: Caller, action: str, resource: str) -> None:
    with host.store.begin() as tx:
        host.services.grants.require(tx, who, action, resource)


def force(host: HostWorld, principal: str, action: str, resource: str = "*") -> None:
    """A grant that the API would refuse, authentic all the same."""
    record = Grant(principal=principal, action=action, resource=resource, granted_by="x", created_at=0)
    with host.store.begin() as tx:
        tx.insert(GRANTS, "acme", grant_id(principal, action, resource), record)


@pytest.fixture
def app(host: HostWorld) -> Caller:
    return host.principal("app")


def test_without_a_grant_everything_is_denied(host: HostWorld, app: Caller) -> None:
    for action, noun in ACTIONS.items():
        with pytest.raises(DeniedError):
            require(host, app, action, f"{noun}/x")


@pytest.mark.parametrize("granted", ["key/ssn", "key/*", "*"])
def test_a_grant_on_the_thing_its_kind_or_everything_allows(
    host: HostWorld, app: Caller, granted: str
) -> None:
    host.grant("app", "seal", granted)
    require(host, app, "seal", "key/ssn")


@pytest.mark.parametrize(
    ("principal", "action", "resource"),
    [
        ("admin", "seal", "key/ssn"),
        ("app", "decrypt", "key/ssn"),
        ("app", "seal", "key/ssn-2"),
        ("app", "seal", "key/s"),
    ],
    ids=["another principal", "another action", "a longer name", "a shorter name"],
)
def test_a_grant_of_something_else_does_not(
    host: HostWorld, app: Caller, principal: str, action: str, resource: str
) -> None:
    host.grant(principal, action, resource)
    with pytest.raises(DeniedError):
        require(host, app, "seal", "key/ssn")


def test_a_grant_on_one_thing_does_not_allow_an_act_on_all(host: HostWorld, app: Caller) -> None:
    host.grant("app", "key.read", "key/ssn")
    with pytest.raises(DeniedError):
        require(host, app, "key.read", "key/*")


def test_a_grant_in_another_tenant_does_not(host: HostWorld, app: Caller) -> None:
    host.call(host.other_admin, "principal.create", principal="app", kind="service")
    host.grant("app", "seal", "*", by=host.other_admin)
    with pytest.raises(DeniedError):
        require(host, app, "seal", "key/ssn")


def test_a_deleted_grant_ends_at_once(host: HostWorld, app: Caller) -> None:
    host.grant("app", "seal", "key/ssn")
    host.call(host.admin, "grant.delete", principal="app", action="seal", resource="key/ssn")
    with pytest.raises(DeniedError):
        require(host, app, "seal", "key/ssn")
    with pytest.raises(ConfigurationError, match="no such grant"):
        host.call(host.admin, "grant.delete", principal="app", action="seal", resource="key/ssn")


def test_a_refusal_is_the_same_whether_the_thing_exists(host: HostWorld, app: Caller) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    messages = set()
    for key in ("ssn", "nothing"):
        with pytest.raises(DeniedError) as caught:
            host.call(app, "key.data_key", key=key)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_every_refusal_is_recorded_once_though_the_transaction_is_undone(
    host: HostWorld, app: Caller
) -> None:
    with pytest.raises(DeniedError):
        host.call(app, "key.data_key", key="ssn")
    [entry] = [e for e in host.audited() if e.outcome == "refused"]
    assert (entry.principal, entry.act, entry.resource) == ("app", "seal", "key/ssn")


def test_a_refusal_that_was_handled_is_recorded_once(host: HostWorld, app: Caller) -> None:
    with host.store.begin() as tx, pytest.raises(DeniedError):
        host.services.grants.require(tx, app, "seal", "key/ssn")
    assert len([e for e in host.audited() if e.outcome == "refused"]) == 1


def test_a_refusal_that_cannot_be_recorded_is_no_plain_refusal(host: HostWorld, app: Caller) -> None:
    from cloister.errors import UnavailableError

    host.pen("DROP TABLE audit")
    with pytest.raises(UnavailableError):
        require(host, app, "seal", "key/ssn")


# --- what no grant can allow ---


@pytest.mark.parametrize("action", ["decrypt", "unwrap", "detokenize"])
def test_a_faas_principal_is_never_granted_sight_of_plaintext(host: HostWorld, action: str) -> None:
    host.principal("fn", kind="faas")
    with pytest.raises(ConfigurationError, match="never granted"):
        host.grant("fn", action, "*")
    assert [e.outcome for e in host.audited("grant.create")] == ["refused"]
    assert host.call(host.admin, "grant.list", principal="fn").grants == []


@pytest.mark.parametrize("action", ["decrypt", "unwrap", "detokenize"])
def test_a_faas_principal_with_such_a_grant_is_refused_when_it_uses_it(host: HostWorld, action: str) -> None:
    who = host.principal("fn", kind="faas")
    force(host, "fn", action)
    with pytest.raises(DeniedError):
        require(host, who, action, f"{ACTIONS[action]}/x")


@pytest.mark.parametrize(
    "action", ["grant.manage", "principal.manage", "tenant.manage", "policy.manage", "function.debug"]
)
def test_a_faas_principal_cannot_give_rights_to_others_in_its_stead(host: HostWorld, action: str) -> None:
    who = host.principal("fn", kind="faas")
    with pytest.raises(ConfigurationError):
        host.grant("fn", action, "*")
    force(host, "fn", action)
    with pytest.raises(DeniedError):
        require(host, who, action, f"{ACTIONS[action]}/x")


@pytest.mark.parametrize("action", ["seal", "wrap", "tokenize", "invoke", "key.read", "secret.manage"])
def test_a_faas_principal_may_be_granted_what_shows_nothing(host: HostWorld, action: str) -> None:
    who = host.principal("fn", (action, "*"), kind="faas")
    require(host, who, action, f"{ACTIONS[action]}/x")


@pytest.mark.parametrize("kind", ["person", "service", "faas"])
@pytest.mark.parametrize("action", ["use-in-function", "egress", "deliver", "use-secret"])
def test_what_functions_do_is_granted_to_functions_alone(host: HostWorld, kind: Kind, action: str) -> None:
    who = host.principal("app", kind=kind)
    with pytest.raises(ConfigurationError):
        host.grant("app", action, "*")
    force(host, "app", action)
    with pytest.raises(DeniedError):
        require(host, who, action, f"{ACTIONS[action]}/x")
    host.grant("function:digest", action, "*")
    require(host, who.as_function("digest"), action, f"{ACTIONS[action]}/x")


@pytest.mark.parametrize(
    "action", ["decrypt", "unwrap", "grant.manage", "invoke", "audit.read", "key.manage"]
)
def test_functions_are_granted_nothing_else(host: HostWorld, app: Caller, action: str) -> None:
    with pytest.raises(ConfigurationError):
        host.grant("function:digest", action, "*")
    force(host, "function:digest", action)
    with pytest.raises(DeniedError):
        require(host, app.as_function("digest"), action, f"{ACTIONS[action]}/x")


def test_every_kind_is_forbidden_something() -> None:
    for kind in get_args(Subject):
        forbidden = {action for action in ACTIONS if forbidden_to(kind, action)}
        assert forbidden, kind
        assert forbidden < set(ACTIONS), kind


# --- malformed grants ---


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("*", "*"),
        ("key.*", "*"),
        ("Seal", "key/ssn"),
        ("", "key/ssn"),
        ("seal", "ssn"),
        ("seal", "key/"),
        ("seal", "key"),
        ("seal", "key/SSN"),
        ("seal", "key/ssn*"),
        ("seal", "key/ssn\n"),
        ("seal", "policy/ssn"),
        ("seal", "**"),
        ("seal", "key/a|b"),
        ("egress", "origin/ftp://x"),
        ("egress", "origin/https://user@host"),
        ("egress", "origin/https://host/path"),
        ("invoke", "function/../x"),
    ],
)
def test_a_grant_that_could_never_be_meant_is_refused(
    host: HostWorld, app: Caller, action: str, resource: str
) -> None:
    with pytest.raises(ConfigurationError):
        host.grant("app" if action != "egress" else "function:digest", action, resource)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("egress", "origin/https://api.example.com"),
        ("egress", "origin/https://api.example.com:8443"),
        ("egress", "origin/https://[2001:db8::1]:8443"),
        ("deliver", "origin/*"),
    ],
)
def test_origins_are_resources(action: str, resource: str) -> None:
    check_grantable(action, resource, tenant="acme", kind="function")


@pytest.mark.parametrize("principal", ["", "Nobody", "a|b", "function:", "function:a|b", "app\n", "a" * 64])
def test_a_grant_to_something_that_is_no_name_is_refused(host: HostWorld, principal: str) -> None:
    with pytest.raises(ConfigurationError):
        host.grant(principal, "seal", "key/ssn")


def test_a_grant_to_a_principal_that_does_not_exist_is_refused(host: HostWorld) -> None:
    with pytest.raises(ConfigurationError, match="no such principal"):
        host.grant("nobody", "seal", "key/ssn")


# --- managing grants ---


def test_granting_needs_the_right(host: HostWorld, app: Caller) -> None:
    who = host.principal("nearly", ("principal.manage", "*"))
    for op in ("grant.create", "grant.delete"):
        with pytest.raises(DeniedError):
            host.call(who, op, principal="app", action="seal", resource="*")
    with pytest.raises(DeniedError):
        host.call(who, "grant.list")


def test_granting_may_be_limited_to_one_principal(host: HostWorld, app: Caller) -> None:
    who = host.principal("lead", ("grant.manage", "principal/app"))
    host.grant("app", "seal", "key/ssn", by=who)
    assert len(host.call(who, "grant.list", principal="app").grants) == 1
    with pytest.raises(DeniedError):
        host.grant("lead", "seal", "key/ssn", by=who)
    with pytest.raises(DeniedError):
        host.call(who, "grant.list")


def test_granting_twice_changes_nothing(host: HostWorld, app: Caller) -> None:
    first: Any = host.call(host.admin, "grant.create", principal="app", action="seal", resource="*")
    host.clock.now += 60
    second: Any = host.call(host.admin, "grant.create", principal="app", action="seal", resource="*")
    assert first == second


def test_listing_one_principal_does_not_list_its_namesakes(host: HostWorld, app: Caller) -> None:
    host.principal("app-2", ("seal", "*"))
    host.grant("app", "wrap", "*")
    grants = host.call(host.admin, "grant.list", principal="app").grants
    assert [(g.principal, g.action, g.granted_by) for g in grants] == [("app", "wrap", "admin")]
    assert len(host.call(host.admin, "grant.list").grants) > 2


# --- a pen in the database ---


@pytest.mark.parametrize("page", [1, 2, 100])
def test_a_caller_sees_what_it_and_its_groups_were_granted(host: HostWorld, app: Caller, page: int) -> None:
    for group in ("apps", "zoo"):
        host.call(host.admin, "group.create", group=group)
    host.call(host.admin, "group.add", group="apps", principal="app")
    given = [("app", "seal"), ("app", "wrap"), ("group:apps", "unwrap"), ("group:apps", "verify")]
    for principal, action in [*given, ("group:zoo", "rewrap"), ("admin", "encrypt")]:
        host.call(host.admin, "grant.create", principal=principal, action=action, resource="key/*")
    seen, after = [], ""
    while True:
        mine = host.call(app, "grant.mine", after=after, limit=page)
        seen += [(grant.principal, grant.action) for grant in mine.grants]
        if not (after := mine.next):
            break
    assert seen == given


def test_a_grant_added_in_the_database_is_found(host: HostWorld, app: Caller) -> None:
    host.pen(
        "INSERT INTO grants"
        " SELECT tenant, 'app|seal|*', version, replace(content, 'admin', 'app'), secret, mac"
        " FROM grants WHERE tenant = 'acme' AND id = 'admin|key.manage|*'"
    )
    with pytest.raises(TamperedError):
        require(host, app, "seal", "key/ssn")


def test_a_grant_copied_from_another_tenant_is_found(host: HostWorld, app: Caller) -> None:
    host.call(host.other_admin, "principal.create", principal="app", kind="service")
    host.grant("app", "seal", "*", by=host.other_admin)
    host.pen("UPDATE grants SET tenant = 'acme' WHERE tenant = 'globex' AND id = 'app|seal|*'")
    with pytest.raises(TamperedError):
        require(host, app, "seal", "key/ssn")
