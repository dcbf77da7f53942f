"""Secrets are written by people and read by functions' egress alone."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.errors import ConfigurationError, DeniedError
from cloister_host.identity.caller import Caller
from cloister_host.secrets import SecretValue
from cloister_host.store import TamperedError
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


def test_no_operation_gives_a_value(host: HostWorld) -> None:
    assert {op for op in host.operations if op.startswith("secret.")} == {
        "secret.put",
        "secret.list",
        "secret.delete",
    }
    results = [put(host), host.call(host.admin, "secret.list")]
    assert "hunter2" not in repr(results)


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
    assert host.call(host.admin, "secret.delete", secret="api-key").version == 2
    with pytest.raises(ConfigurationError, match="no such secret"):
        read(host, function)
    assert host.pen("SELECT secret FROM secrets") == [(None,)]
    assert host.call(host.admin, "secret.list").secrets == []
    with pytest.raises(ConfigurationError, match="no such secret"):
        host.call(host.admin, "secret.delete", secret="api-key")
    assert put(host, "hunter4").version == 3


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
        "UPDATE secrets SET secret = (SELECT secret FROM secrets WHERE id = 'other') WHERE id = 'api-key'"
    )
    with pytest.raises(TamperedError):
        read(host, function)


@pytest.mark.parametrize("value", ["", "x" * (64 * 1024 + 1)], ids=["empty", "too long"])
def test_a_value_of_a_wrong_size_is_refused(host: HostWorld, value: str) -> None:
    with pytest.raises(ConfigurationError):
        put(host, value)
    assert host.pen("SELECT * FROM secrets") == []
