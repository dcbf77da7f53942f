"""A sealed request has its effect once, and its reply as often as it is asked for (PROTOCOL 6)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloister_host.store import TamperedError
from cloister_host.store.replay import MAX_SKEW_SECONDS, ReplayError
from support.host_world import HostWorld

DIGEST = bytes(32)
OTHER = bytes(31) + b"\x01"


def begin(
    host: HostWorld, *, jti: str = "jti", digest: bytes = DIGEST, expires: int | None = None
) -> str | None:
    with host.store.begin() as tx:
        return host.services.replay.begin(tx, jti, digest, expires or int(host.clock.now) + 300)


def finish(host: HostWorld, reply: str = "reply", *, jti: str = "jti") -> None:
    with host.store.begin() as tx:
        host.services.replay.finish(tx, jti, reply)


def test_a_new_request_is_new(host: HostWorld) -> None:
    assert begin(host) is None


def test_the_same_request_gets_the_same_reply(host: HostWorld) -> None:
    begin(host)
    finish(host)
    assert begin(host) == "reply"
    assert begin(host) == "reply"


def test_another_ciphertext_under_the_same_identifier_is_refused(host: HostWorld) -> None:
    begin(host)
    finish(host)
    with pytest.raises(ReplayError) as caught:
        begin(host, digest=OTHER)
    assert not caught.value.retryable


def test_a_request_that_is_being_worked_on_is_retryable(host: HostWorld) -> None:
    begin(host)
    with pytest.raises(ReplayError) as caught:
        begin(host)
    assert caught.value.retryable


def test_another_identifier_is_another_request(host: HostWorld) -> None:
    begin(host)
    assert begin(host, jti="other", digest=OTHER) is None


def test_the_first_reply_stays(host: HostWorld) -> None:
    begin(host)
    finish(host, "first")
    finish(host, "second")
    assert begin(host) == "first"


def test_a_request_is_remembered_as_long_as_any_clock_accepts_it(host: HostWorld) -> None:
    expires = int(host.clock.now) + 300
    begin(host, expires=expires)
    finish(host)
    host.clock.now = expires + 2 * MAX_SKEW_SECONDS
    assert begin(host, expires=expires) == "reply"
    host.clock.now += 2
    assert begin(host, jti="other") is None
    assert host.pen("SELECT jti FROM requests") == [("other",)]


def test_a_reply_is_kept_for_a_request_that_was_undone(host: HostWorld) -> None:
    with host.store.begin() as tx:
        host.services.replay.keep(tx, "jti", DIGEST, int(host.clock.now) + 300, "refused")
    assert begin(host) == "refused"


@pytest.mark.parametrize("change", ["digest = 'text'", "reply = 7", "reply = 'text'"])
def test_a_row_that_is_not_even_bytes_is_found(host: HostWorld, change: str) -> None:
    host.only_sqlite("columns have types")
    begin(host)
    finish(host)
    host.pen(f"UPDATE requests SET {change}")
    with pytest.raises(TamperedError):
        begin(host)


@pytest.mark.parametrize("answered", [False, True])
def test_a_record_that_the_database_lost_is_noticed(host: HostWorld, *, answered: bool) -> None:
    begin(host)
    if answered:
        finish(host)
    host.pen("DELETE FROM requests")
    with pytest.raises(TamperedError):
        begin(host)


def test_a_record_that_was_given_another_digest_is_noticed(host: HostWorld) -> None:
    begin(host)
    finish(host)
    host.pen("UPDATE requests SET digest = ?", OTHER)
    with pytest.raises(TamperedError):
        begin(host, digest=OTHER)


def test_of_many_at_once_one_is_the_first(host: HostWorld) -> None:
    barrier = threading.Barrier(8)

    def race(_: int) -> bool:
        barrier.wait()
        try:
            return begin(host) is None
        except ReplayError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1
