from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloister.errors import ConfigurationError, DeniedError, IdentityError
from cloister_host.identity.tenants import ADMIN
from cloister_host.services import bootstrap
from cloister_host.store import ExistsError, TamperedError
from support.host_world import HostWorld, caller


def test_bootstrap_gives_an_operator_who_manages_tenants(tmp_path: Path) -> None:
    host = HostWorld(tmp_path)
    who = host.authenticate(host.operator_key, tenant="system")
    assert (who.tenant, who.principal) == ("system", "operator")
    names = [tenant.tenant for tenant in host.call(who, "tenant.list").tenants]
    assert names == ["acme", "globex", "system"]
    host.close()


def test_bootstrap_happens_once(host: HostWorld) -> None:
    with pytest.raises(ConfigurationError, match="initialised already"):
        bootstrap(host.services)
    assert host.authenticate(host.operator_key, tenant="system").principal == "operator"


def test_a_new_tenant_has_an_admin_and_nothing_of_another(host: HostWorld) -> None:
    created = host.call(host.operator, "tenant.create", tenant="fresh")
    who = host.authenticate(created.api_key, tenant="fresh")
    assert (created.principal, who.principal) == (ADMIN, ADMIN)
    assert host.call(who, "secret.list").secrets == []
    assert [p.principal for p in host.call(who, "principal.list").principals] == [ADMIN]


def test_a_tenant_name_that_is_taken_is_refused(host: HostWorld) -> None:
    for name in ("acme", "system"):
        with pytest.raises(ExistsError):
            host.call(host.operator, "tenant.create", tenant=name)
    assert host.authenticate(host.admin_key).principal == "admin"


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        ("key.data_key", {"key": "ssn"}),
        ("key.unwrap", {"kid": "ssn.1", "encrypted_key": "A" * 54}),
        ("token.tokenize", {"policy": "pins", "values": ["1"]}),
        ("token.detokenize", {"policy": "pins", "tokens": ["1"]}),
    ],
)
def test_a_new_admin_manages_but_neither_seals_nor_sees(
    host: HostWorld, op: str, payload: dict[str, Any]
) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    with pytest.raises(DeniedError):
        host.call(host.admin, op, **payload)


def test_an_admin_can_grant_itself_the_right_and_that_is_recorded(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    host.grant("admin", "seal", "key/ssn")
    assert host.call(host.admin, "key.data_key", key="ssn").kid == "ssn.1"
    [entry] = host.audited("grant.create")
    assert entry.detail == {"action": "seal", "on": "key/ssn"}


def test_a_grant_of_tenant_management_means_nothing_outside_the_system_tenant(host: HostWorld) -> None:
    with pytest.raises(ConfigurationError):
        host.grant("admin", "tenant.manage", "*")
    # Even if the row were there, made by an older host.
    from cloister_host.policy.grants import GRANTS, Grant, grant_id

    record = Grant(principal="admin", action="tenant.manage", resource="*", granted_by="x", created_at=0)
    with host.store.begin() as tx:
        tx.insert(GRANTS, "acme", grant_id("admin", "tenant.manage", "*"), record)
    with pytest.raises(DeniedError):
        host.call(host.admin, "tenant.create", tenant="mine")
    with pytest.raises(DeniedError):
        host.call(host.admin, "tenant.list")


def test_the_operator_has_no_reach_into_tenants(host: HostWorld) -> None:
    assert [p.principal for p in host.call(host.operator, "principal.list").principals] == ["operator"]
    with pytest.raises(DeniedError):
        host.call(host.operator, "key.list")


def test_a_new_principal_has_no_rights(host: HostWorld) -> None:
    created = host.call(host.admin, "principal.create", principal="app", kind="service")
    who = host.authenticate(created.api_key)
    for op in ("principal.list", "grant.list", "key.list", "secret.list", "policy.list", "audit.list"):
        with pytest.raises(DeniedError):
            host.call(who, op)


def test_a_principal_name_that_is_taken_is_refused_though_it_is_disabled(host: HostWorld) -> None:
    host.principal("app")
    host.call(host.admin, "principal.disable", principal="app")
    with pytest.raises(ExistsError):
        host.call(host.admin, "principal.create", principal="app", kind="person")


def test_a_rotated_key_stops_at_once(host: HostWorld) -> None:
    old = host.call(host.admin, "principal.create", principal="app", kind="service").api_key
    new = host.call(host.admin, "principal.rotate_key", principal="app").api_key
    assert host.authenticate(new).principal == "app"
    with pytest.raises(IdentityError):
        host.authenticate(old)


@pytest.mark.parametrize("op", ["principal.rotate_key", "principal.disable"])
def test_a_principal_that_does_not_exist_or_is_disabled_is_refused(host: HostWorld, op: str) -> None:
    host.principal("gone")
    host.call(host.admin, "principal.disable", principal="gone")
    for name in ("nobody", "gone"):
        with pytest.raises(ConfigurationError, match="no such principal"):
            host.call(host.admin, op, principal=name)


def test_nobody_disables_itself(host: HostWorld) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        host.call(host.admin, "principal.disable", principal="admin")


def test_principals_of_another_tenant_are_out_of_reach(host: HostWorld) -> None:
    host.principal("app")
    with pytest.raises(ConfigurationError, match="no such principal"):
        host.call(host.other_admin, "principal.rotate_key", principal="app")


def test_a_faas_principal_made_a_person_in_the_database_is_found(host: HostWorld) -> None:
    key = host.call(host.admin, "principal.create", principal="fn", kind="faas").api_key
    assert host.authenticate(key).kind == "faas"
    host.pen("""UPDATE principals SET content = replace(content, '"faas"', '"person"')""")
    with pytest.raises(TamperedError):
        host.authenticate(key)


@pytest.mark.parametrize("op", ["principal.create", "principal.rotate_key", "principal.disable"])
def test_managing_principals_needs_the_right(host: HostWorld, op: str) -> None:
    who = host.principal("nearly", ("grant.manage", "*"), ("key.manage", "*"))
    more = {"kind": "service"} if op == "principal.create" else {}
    with pytest.raises(DeniedError):
        host.call(who, op, principal="app", **more)


def test_listing_gives_pages(host: HostWorld) -> None:
    for name in ("a", "b", "c"):
        host.principal(name)
    first = host.call(host.admin, "principal.list", limit=2)
    assert [p.principal for p in first.principals] == ["a", "admin"]
    second = host.call(host.admin, "principal.list", limit=2, after=first.next)
    assert [p.principal for p in second.principals] == ["b", "c"]
    third = host.call(host.admin, "principal.list", limit=2, after=second.next)
    assert (third.principals, third.next) == ([], "")


def test_as_a_function_a_caller_keeps_its_tenant_and_name() -> None:
    function = caller("app").as_function("digest")
    assert (function.principal, function.kind, function.tenant) == ("function:digest", "function", "acme")
    assert function.on_behalf_of == "app"
