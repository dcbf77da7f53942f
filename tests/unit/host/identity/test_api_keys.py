"""API keys over time: several at once, an end, an overlap, and whose business they are."""

from __future__ import annotations

import pytest

from cloister.errors import ConfigurationError, DeniedError, IdentityError, LimitError
from cloister_host.identity.caller import Caller
from cloister_host.store import TamperedError
from support.host_world import HostWorld


@pytest.fixture
def app(host: HostWorld) -> Caller:
    return host.principal("app")


def rotate(host: HostWorld, **payload: object) -> str:
    key: str = host.call(host.admin, "principal.rotate_key", principal="app", **payload).api_key
    return key


def accepted(host: HostWorld, key: str) -> bool:
    try:
        return host.authenticate(key).principal == "app"
    except IdentityError:
        return False


def test_a_rotation_ends_the_old_key_at_once(host: HostWorld, app: Caller) -> None:
    one = rotate(host)
    two = rotate(host)
    assert (accepted(host, one), accepted(host, two)) == (False, True)


def test_with_an_overlap_both_keys_work_until_it_ends(host: HostWorld, app: Caller) -> None:
    one = rotate(host)
    two = rotate(host, overlap_seconds=600)
    host.clock.now += 599
    assert (accepted(host, one), accepted(host, two)) == (True, True)
    host.clock.now += 1
    assert (accepted(host, one), accepted(host, two)) == (False, True)


def test_an_overlap_never_lengthens_a_keys_life(host: HostWorld, app: Caller) -> None:
    one = rotate(host, expires_seconds=60)
    rotate(host, overlap_seconds=600)
    host.clock.now += 60
    assert not accepted(host, one)


def test_a_key_expires_and_setting_the_clock_back_does_not_help(host: HostWorld, app: Caller) -> None:
    key = rotate(host, expires_seconds=60)
    assert accepted(host, key)
    host.clock.now += 60
    assert not accepted(host, key)
    host.clock.now -= 60
    assert not accepted(host, key)


def test_keys_are_listed_by_their_public_part_and_revoked_one_by_one(host: HostWorld, app: Caller) -> None:
    one = rotate(host)
    two = rotate(host, overlap_seconds=600)
    listed = host.call(host.admin, "principal.keys", principal="app").keys
    assert [key.key for key in listed] == [one[4:20], two[4:20]]
    assert not any(key[21:] in repr(listed) for key in (one, two))
    host.call(host.admin, "principal.revoke_key", principal="app", key=two[4:20])
    assert (accepted(host, one), accepted(host, two)) == (True, False)
    with pytest.raises(ConfigurationError, match="no such API key"):
        host.call(host.admin, "principal.revoke_key", principal="app", key=two[4:20])


def test_a_principal_looks_after_its_own_keys_and_no_others(host: HostWorld, app: Caller) -> None:
    mine = host.call(app, "principal.rotate_key", principal="app").api_key
    assert accepted(host, mine)
    assert len(host.call(app, "principal.keys", principal="app").keys) == 1
    for op, more in (
        ("principal.rotate_key", {}),
        ("principal.keys", {}),
        ("principal.revoke_key", {"key": "0" * 16}),
    ):
        for name in ("admin", "nobody"):
            with pytest.raises(DeniedError):
                host.call(app, op, principal=name, **more)


def test_a_principal_cannot_hoard_keys(host: HostWorld, app: Caller) -> None:
    for _ in range(7):
        rotate(host, overlap_seconds=600)
    with pytest.raises(LimitError, match="too many"):
        rotate(host, overlap_seconds=600)
    host.clock.now += 600
    assert accepted(host, rotate(host, overlap_seconds=600))


def test_a_principal_without_a_key_has_none(host: HostWorld) -> None:
    made = host.call(host.admin, "principal.create", principal="bound", kind="faas", api_key=False)
    assert made.api_key == ""
    assert host.call(host.admin, "principal.keys", principal="bound").keys == []


def test_a_revoked_key_put_back_in_the_database_is_refused(host: HostWorld, app: Caller) -> None:
    one = rotate(host)
    rows = host.pen("SELECT * FROM api_keys WHERE id = ?", one[4:20])
    rotate(host)
    host.pen(f"INSERT INTO api_keys VALUES ({', '.join('?' * len(rows[0]))})", *rows[0])
    with pytest.raises(TamperedError):
        accepted(host, one)
