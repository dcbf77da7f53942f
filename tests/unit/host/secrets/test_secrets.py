"""Secrets are written by people and read by functions' egress alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloister.errors import ConfigurationError, DeniedError
from cloister_host.identity.caller import Caller
from cloister_host.secrets import SecretValue
from cloister_host.services import build_services
from cloister_host.store import TamperedError
from support.faults import crash_at_every_step
from support.host_world import HostWorld, caller

FUNCTION = caller("app", kind="service").as_function("digest")


@pytest.fixture
def function(host: HostWorld) -> Caller:
    host.grant("function:digest", "use-secret", "secret/api-key")
    return FUNCTION


def put(host: HostWorld, value: str = "hunter2", name: str = "api-key") -> Any:
    return host.call(host.admin, "secret.put", secret=name, value=value)


def read(host: HostWorld, who: Caller, name: str = "api-key") -> SecretValue:
    with host.store.begin() as tx:
        return host.services.secrets.read(tx, who, name)


def test_a_function_reads_the_latest_version(host: HostWorld, function: Caller) -> None:
    assert put(host).version == 1
    assert put(host, "hunter3").version == 2
    found = read(host, function)
    assert (found.version, found.value.reveal()) == (2, b"hunter3")
    [entry] = host.audited("use-secret")
    assert (entry.principal, entry.on_behalf_of, entry.detail) == ("function:digest", "app", {"version": 2})


def test_only_one_operation_gives_a_value_and_its_right_is_nobodys_by_default(host: HostWorld) -> None:
    results = [put(host)]
    payloads: dict[str, dict[str, Any]] = {
        "secret.list": {},
        "secret.versions": {"secret": "api-key"},
        "secret.schedule": {"secret": "api-key"},
        "secret.delete": {"secret": "api-key"},
        "secret.undelete": {"secret": "api-key"},
        "secret.destroy": {"secret": "api-key", "version": 1},
    }
    assert {"secret.get", "secret.put", *payloads} == {
        op for op in host.operations if op.startswith("secret.")
    }
    with pytest.raises(DeniedError):
        host.call(host.admin, "secret.get", secret="api-key")
    results += [host.call(host.admin, op, **payload) for op, payload in payloads.items()]
    assert "hunter2" not in msgspec.json.encode(results).decode()


def test_nothing_that_is_shown_or_stored_has_the_value(host: HostWorld, function: Caller) -> None:
    put(host)
    request = host.operations["secret.put"].parse(b'{"secret":"api-key","value":"hunter2"}')
    assert "hunter2" not in repr(request)
    assert "hunter2" not in repr(read(host, function))
    host.pen("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"hunter2" not in host.path.read_bytes()


@pytest.mark.parametrize("action", ["secret.manage", "key.manage"])
def test_a_person_cannot_read_whatever_was_granted(host: HostWorld, action: str) -> None:
    put(host)
    who = host.principal("app", (action, "*"))
    with pytest.raises(DeniedError):
        read(host, who)


def test_another_digest_or_another_secret_is_denied(host: HostWorld, function: Caller) -> None:
    put(host)
    put(host, name="other")
    with pytest.raises(DeniedError):
        read(host, caller("app", kind="service").as_function("other"))
    with pytest.raises(DeniedError):
        read(host, function, "other")


def test_the_same_function_in_another_tenant_reads_nothing(host: HostWorld, function: Caller) -> None:
    put(host)
    with pytest.raises(DeniedError):
        read(host, caller("app", tenant="globex", kind="service").as_function("digest"))


def test_a_deleted_secret_is_gone_and_its_versions_go_on(host: HostWorld, function: Caller) -> None:
    put(host)
    assert host.call(host.admin, "secret.delete", secret="api-key").state == "deleted"
    with pytest.raises(ConfigurationError, match="no such secret"):
        read(host, function)
    assert host.call(host.admin, "secret.list").secrets == []
    with pytest.raises(ConfigurationError, match="no such secret"):
        host.call(host.admin, "secret.delete", secret="api-key")
    assert put(host, "hunter4").version == 2
    assert read(host, function).value.reveal() == b"hunter4"


@pytest.mark.parametrize("op", ["secret.put", "secret.list", "secret.delete"])
def test_managing_secrets_needs_the_right(host: HostWorld, op: str) -> None:
    who = host.principal("nearly", ("key.manage", "*"))
    payload = {"secret.put": {"secret": "x", "value": "y"}, "secret.delete": {"secret": "x"}}
    with pytest.raises(DeniedError):
        host.call(who, op, **payload.get(op, {}))


def test_the_secret_of_another_name_in_its_place_is_found(host: HostWorld, function: Caller) -> None:
    put(host)
    put(host, "harmless", name="other")
    host.pen(
        "UPDATE secret_versions SET secret ="
        " (SELECT secret FROM secret_versions WHERE id LIKE 'other/%') WHERE id LIKE 'api-key/%'"
    )
    with pytest.raises(TamperedError):
        read(host, function)


@pytest.mark.parametrize("value", ["", "x" * (64 * 1024 + 1)], ids=["empty", "too long"])
def test_a_value_of_a_wrong_size_is_refused(host: HostWorld, value: str) -> None:
    with pytest.raises(ConfigurationError):
        put(host, value)
    assert host.pen("SELECT * FROM secrets") == []


# --- versions ---


def states(host: HostWorld) -> dict[int, str]:
    found = host.call(host.admin, "secret.versions", secret="api-key").versions
    return {version.version: version.state for version in found}


@pytest.fixture
def reader(host: HostWorld) -> Caller:
    return host.principal("reader", ("secret.read", "secret/api-key"))


def get(host: HostWorld, who: Caller, **more: Any) -> str:
    return str(host.call(who, "secret.get", secret="api-key", **more).value)


def test_whoever_was_granted_it_reads_the_newest_or_a_named_version(host: HostWorld, reader: Caller) -> None:
    put(host)
    put(host, "hunter3")
    assert (get(host, reader), get(host, reader, version=1)) == ("hunter3", "hunter2")
    with pytest.raises(ConfigurationError, match="no such secret"):
        get(host, reader, version=9)
    assert [entry.detail for entry in host.audited("secret.get")] == [{"version": 2}, {"version": 1}]
    assert "hunter" not in repr(host.call(reader, "secret.get", secret="api-key"))


def test_a_faas_principal_and_a_function_never_read_through_the_api(
    host: HostWorld, function: Caller
) -> None:
    put(host)
    host.principal("lambda", kind="faas")
    for principal in ("lambda", "function:digest"):
        with pytest.raises(ConfigurationError, match="never granted"):
            host.grant(principal, "secret.read", "secret/*")
    for who in (caller("lambda", kind="faas"), function):
        with pytest.raises(DeniedError):
            get(host, who)


def test_check_and_set_lets_one_of_two_writers_through(host: HostWorld) -> None:
    host.call(host.admin, "secret.put", secret="api-key", value="a", if_version=0)
    host.call(host.admin, "secret.put", secret="api-key", value="b", if_version=1)
    for stale in (0, 1, 3):
        with pytest.raises(ConfigurationError, match="newest version of this secret is 2"):
            host.call(host.admin, "secret.put", secret="api-key", value="c", if_version=stale)
    assert states(host) == {1: "active", 2: "active"}


def test_a_value_is_good_for_its_ttl_and_then_erased(
    host: HostWorld, function: Caller, reader: Caller
) -> None:
    put(host)
    made = host.call(host.admin, "secret.put", secret="api-key", value="short", ttl_seconds=60)
    assert made.expires_at == int(host.clock()) + 60
    assert read(host, function).value.reveal() == b"short"
    host.clock.now += 60
    # The older version does not take its place.
    for attempt in (lambda: read(host, function), lambda: get(host, reader)):
        with pytest.raises(ConfigurationError, match="no such secret"):
            attempt()
    host.clock.now -= 60  # nor does a clock that is set back bring it back
    with pytest.raises(ConfigurationError, match="no such secret"):
        read(host, function)
    assert states(host) == {1: "active", 2: "expired"}
    with host.store.begin() as tx:
        host.services.secrets.keep(tx, host.admin)
    assert states(host) == {1: "active", 2: "destroyed"}
    assert host.pen("SELECT secret FROM secret_versions WHERE id LIKE '%2'") == [(None,)]


def test_a_deleted_version_comes_back_for_thirty_days(host: HostWorld, function: Caller) -> None:
    put(host)
    host.call(host.admin, "secret.delete", secret="api-key")
    with pytest.raises(ConfigurationError, match="no such secret"):
        read(host, function)
    host.call(host.admin, "secret.undelete", secret="api-key")
    assert read(host, function).value.reveal() == b"hunter2"
    with pytest.raises(ConfigurationError, match="not deleted"):
        host.call(host.admin, "secret.undelete", secret="api-key")
    host.call(host.admin, "secret.delete", secret="api-key")
    host.clock.now += 30 * 86_400
    with host.store.begin() as tx:
        host.services.secrets.keep(tx, host.admin)
    with pytest.raises(ConfigurationError, match="never comes back"):
        host.call(host.admin, "secret.undelete", secret="api-key")


def test_a_destroyed_version_is_erased_at_once(host: HostWorld, reader: Caller) -> None:
    put(host)
    put(host, "hunter3")
    host.call(host.admin, "secret.destroy", secret="api-key", version=1)
    assert host.pen("SELECT secret FROM secret_versions WHERE id LIKE '%1'") == [(None,)]
    for act, match in (("secret.destroy", "destroyed already"), ("secret.undelete", "never comes back")):
        with pytest.raises(ConfigurationError, match=match):
            host.call(host.admin, act, secret="api-key", version=1)
    with pytest.raises(ConfigurationError, match="no such secret"):
        get(host, reader, version=1)
    assert get(host, reader) == "hunter3"


def test_only_the_ten_newest_versions_are_kept(host: HostWorld) -> None:
    for number in range(12):
        put(host, f"value-{number}")
    assert [number for number, state in states(host).items() if state == "active"] == list(range(3, 13))


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        ("secret.put", {"value": "new"}),
        ("secret.delete", {}),
        ("secret.destroy", {"version": 1}),
    ],
)
def test_an_act_that_crashes_at_any_step_has_done_nothing(
    host: HostWorld, monkeypatch: pytest.MonkeyPatch, op: str, payload: dict[str, Any]
) -> None:
    put(host)
    died = crash_at_every_step(
        monkeypatch,
        host,
        lambda: host.call(host.admin, op, secret="api-key", **payload),
        "secrets",
        "secret_versions",
        "audit",
    )
    assert died >= 2


def test_another_tenants_secret_is_one_that_is_not_there(host: HostWorld) -> None:
    put(host)
    host.grant("admin", "secret.read", "secret/*", by=host.other_admin)
    with pytest.raises(ConfigurationError, match="no such secret"):
        get(host, host.other_admin)


def test_a_secret_written_by_one_replica_is_read_by_another(host: HostWorld, reader: Caller) -> None:
    put(host)
    operation = build_services(host.store, host.root, host.clock).operations()["secret.get"]
    with host.store.begin() as tx:
        assert operation.handler(reader, operation.parse(b'{"secret":"api-key"}'), tx).value == "hunter2"
