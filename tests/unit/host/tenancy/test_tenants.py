"""A tenant is sealed off at once, opened again, or deleted for good, and the report says what is left."""

from __future__ import annotations

import pytest

from cloister.errors import (
    ConfigurationError,
    DeniedError,
    IdentityError,
    QuorumNeededError,
    UnavailableError,
)
from cloister_host.store.erasure import KEPT, tables_of_tenants
from cloister_host.store.generations import Generation, put_generation
from support.backups import take_file
from support.host_world import HostWorld, caller


def seal_off(host: HostWorld) -> None:
    host.call(host.operator, "tenant.seal_off", tenant="acme")


def fill(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    host.call(host.admin, "secret.put", secret="partner", value="hunter2")


def test_a_sealed_off_tenant_is_refused_at_once_and_open_again_when_unsealed(host: HostWorld) -> None:
    fill(host)
    seal_off(host)
    with pytest.raises(IdentityError):
        host.authenticate(host.admin_key)
    host.call(host.operator, "tenant.unseal", tenant="acme")
    assert host.authenticate(host.admin_key).principal == "admin"
    who = host.principal("app", ("seal", "*"))
    assert host.call(who, "key.data_key", key="ssn").kid == "ssn.1"


def test_nothing_of_a_sealed_off_tenant_is_opened_whoever_asks(host: HostWorld) -> None:
    """Also by what runs beside requests, such as deliveries."""
    fill(host)
    who = host.principal("app", ("seal", "*"))
    host.call(who, "key.data_key", key="ssn")
    seal_off(host)
    for op, asker, payload in (
        ("key.data_key", who, {"key": "ssn"}),
        ("secret.put", host.admin, {"secret": "s", "value": "v"}),
        ("key.create", host.admin, {"key": "other", "purpose": "seal"}),
    ):
        with pytest.raises(UnavailableError, match="sealed off"):
            host.call(asker, op, **payload)


def test_the_kek_leaves_the_memory(host: HostWorld) -> None:
    fill(host)
    derive = host.store._blobs._derived
    assert derive.cache_info().currsize
    seal_off(host)
    assert derive.cache_info().currsize == 0


def test_other_tenants_go_on(host: HostWorld) -> None:
    seal_off(host)
    host.call(host.other_admin, "key.create", key="ssn", purpose="seal")


def test_a_seal_broken_with_a_pen_is_found(host: HostWorld) -> None:
    seal_off(host)
    host.pen("""UPDATE tenants SET content = replace(content, 'sealed_off', 'active') WHERE id = 'acme'""")
    with pytest.raises(UnavailableError, match="outside the host"):
        host.authenticate(host.admin_key)


def test_states_follow_each_other_as_they_are_told(host: HostWorld) -> None:
    for op in ("tenant.unseal", "tenant.delete", "tenant.deletion_report"):
        with pytest.raises(ConfigurationError, match="the tenant is active"):
            host.call(host.operator, op, tenant="acme")
    seal_off(host)
    with pytest.raises(ConfigurationError, match="sealed_off"):
        seal_off(host)
    for name in ("absent", "system"):
        with pytest.raises(ConfigurationError, match="no such tenant"):
            host.call(host.operator, "tenant.seal_off", tenant=name)


@pytest.mark.parametrize(
    "op", ["tenant.seal_off", "tenant.unseal", "tenant.delete", "tenant.deletion_report"]
)
def test_only_the_operator_manages_tenants(host: HostWorld, op: str) -> None:
    for who in (host.admin, caller("nobody"), caller("nobody", tenant="system")):
        said = set()
        for name in ("acme", "globex", "absent"):
            with pytest.raises(DeniedError) as caught:
                host.call(who, op, tenant=name)
            said.add(str(caught.value))
        assert len(said) == 1


# --- deletion -----------------------------------------------------------------------------------------


def delete(host: HostWorld) -> object:
    seal_off(host)
    return host.call(host.operator, "tenant.delete", tenant="acme")


def test_a_deleted_tenant_leaves_no_row_but_the_log(host: HostWorld) -> None:
    fill(host)
    host.call(host.other_admin, "key.create", key="theirs", purpose="seal")
    report = delete(host)
    assert set(report.rows) == {"audit"}  # type: ignore[attr-defined]
    for table in tables_of_tenants():
        assert host.pen(f"SELECT COUNT(*) FROM {table} WHERE tenant = 'acme'") == [(0,)], table
    assert host.call(host.other_admin, "key.list").keys[0].key == "theirs"
    if host.path.exists():  # SQLite overwrites what it deletes
        assert b"hunter2" not in host.path.read_bytes()


def test_it_is_deleting_until_no_copy_can_be_opened_any_more(host: HostWorld) -> None:
    with host.store.begin() as tx:
        put_generation(tx, 1, Generation(state="retired"))
        put_generation(tx, 2, Generation(state="active"))
    report = delete(host)
    assert report.state == "deleting"  # type: ignore[attr-defined]
    assert "generation 1" in report.remains[0]  # type: ignore[attr-defined]
    with host.store.begin() as tx:
        put_generation(tx, 1, Generation(state="destroyed"))
    report = host.call(host.operator, "tenant.deletion_report", tenant="acme")
    assert (report.state, report.remains) == ("deleted", [])


def test_it_is_deleting_until_no_backup_with_its_rows_is_left(host: HostWorld) -> None:
    before = take_file(host).manifest.id
    with host.store.begin() as tx:
        put_generation(tx, 1, Generation(state="retired"))
        put_generation(tx, 2, Generation(state="active"))
    delete(host)
    host.clock.now += 1
    after = take_file(host).manifest.id
    with host.store.begin() as tx:
        put_generation(tx, 1, Generation(state="destroyed"))
    report = host.call(host.operator, "tenant.deletion_report", tenant="acme")
    assert report.state == "deleting"
    [remains] = report.remains
    assert before in remains
    assert after not in remains
    host.call(host.operator, "backup.forget", backup=before)
    report = host.call(host.operator, "tenant.deletion_report", tenant="acme")
    assert (report.state, report.remains) == ("deleted", [])


def test_rows_that_come_back_are_reported(host: HostWorld) -> None:
    fill(host)
    [row] = host.pen("SELECT * FROM keys WHERE tenant = 'acme'")
    delete(host)
    host.pen(f"INSERT INTO keys VALUES ({', '.join('?' * len(row))})", *row)
    report = host.call(host.operator, "tenant.deletion_report", tenant="acme")
    assert report.rows["keys"] == 1
    assert "rows of the tenant" in report.remains


def test_the_name_of_a_deleted_tenant_is_never_given_again(host: HostWorld) -> None:
    delete(host)
    with pytest.raises(ConfigurationError, match="exists already"):
        host.call(host.operator, "tenant.create", tenant="acme")
    with pytest.raises(IdentityError):
        host.authenticate(host.admin_key)
    with pytest.raises(ConfigurationError, match=r"the tenant is delet(ed|ing)"):
        host.call(host.operator, "tenant.unseal", tenant="acme")


def test_deletion_can_be_put_under_quorum(host: HostWorld) -> None:
    def system(op: str, **payload: object) -> object:
        return host.call(host.operator, op, **payload)

    for name in ("ann", "bob"):
        system("principal.create", principal=name, kind="person")
        system("grant.create", principal=name, action="approve", resource="act/*")
    system("quorum.set", act="tenant.delete", approvals=1)
    seal_off(host)
    with pytest.raises(QuorumNeededError) as caught:
        system("tenant.delete", tenant="acme")
    assert host.pen("SELECT COUNT(*) FROM principals WHERE tenant = 'acme'") == [(1,)]
    ann = caller("ann", tenant="system")
    host.call(ann, "proposal.approve", proposal=caught.value.proposal_id)
    system("tenant.delete", tenant="acme")


def test_every_table_with_a_tenant_is_erased_or_kept_on_purpose(host: HostWorld) -> None:
    found = {
        name
        for (name,) in host.pen("SELECT name FROM sqlite_master WHERE type = 'table'")
        if any(column[1] == "tenant" for column in host.pen(f"PRAGMA table_info({name})"))
    }
    assert found == {*tables_of_tenants(), *KEPT}
