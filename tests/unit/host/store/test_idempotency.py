"""One effect per idempotency key (PROTOCOL 6)."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cloister.errors import ConfigurationError, UnavailableError
from cloister.jose import b64url_encode
from cloister_host.identity.caller import Caller
from cloister_host.store import TamperedError
from cloister_host.store.idempotency import KEPT_SECONDS, LEASE_SECONDS, Done, Fresh
from support.host_world import HostWorld, caller

ALICE = caller("alice")
REQUEST = hashlib.sha256(b"request").digest()
OTHER = hashlib.sha256(b"other").digest()


def claim(
    host: HostWorld, who: Caller = ALICE, *, op: str = "op", key: str = "key", request: bytes = REQUEST
) -> Fresh | Done:
    with host.store.begin() as tx:
        return host.services.idempotency.claim(tx, who, op, key, request)


def finish(host: HostWorld, who: Caller = ALICE, result: bytes = b"result") -> None:
    with host.store.begin() as tx:
        host.services.idempotency.finish(tx, who, "op", "key", result)


def release(host: HostWorld, who: Caller = ALICE) -> None:
    with host.store.begin() as tx:
        host.services.idempotency.release(tx, who, "op", "key")


def test_a_first_claim_is_fresh_and_a_second_gets_the_result(host: HostWorld) -> None:
    assert claim(host) == Fresh()
    finish(host)
    assert claim(host) == Done(b"result")


def test_a_result_is_not_readable_in_the_database(host: HostWorld) -> None:
    claim(host)
    finish(host, result=b"clk_0123456789abcdef_secret")
    for row in host.pen("SELECT * FROM idempotency"):
        assert b"clk_0123456789abcdef" not in repr(row).encode()


def test_the_database_holds_no_digest_that_a_guess_could_be_tried_on(host: HostWorld) -> None:
    claim(host)
    stored = repr(host.pen("SELECT * FROM idempotency"))
    for guess in (REQUEST, hashlib.sha256(REQUEST).digest(), hashlib.sha256(REQUEST.hex().encode()).digest()):
        for form in (guess.hex(), b64url_encode(guess)):
            assert form not in stored


def test_the_same_key_for_another_request_is_refused(host: HostWorld) -> None:
    claim(host)
    finish(host)
    with pytest.raises(ConfigurationError):
        claim(host, request=OTHER)
    assert claim(host) == Done(b"result")


def test_a_claim_in_progress_is_retryable(host: HostWorld) -> None:
    claim(host)
    with pytest.raises(UnavailableError) as caught:
        claim(host, replace(ALICE, correlation_id="request-2"))
    assert caught.value.retryable


@pytest.mark.parametrize(
    "other",
    [
        {"who": caller("bob")},
        {"who": caller("alice", tenant="globex")},
        {"op": "another-op"},
        {"key": "another-key"},
    ],
    ids=["principal", "tenant", "operation", "key"],
)
def test_a_key_is_of_one_tenant_principal_and_operation(host: HostWorld, other: dict[str, object]) -> None:
    claim(host)
    finish(host)
    assert claim(host, **other) == Fresh()  # type: ignore[arg-type]


@pytest.mark.parametrize("between", ["|", '","', "/", "\x00", ""])
def test_parts_of_the_scope_do_not_run_together(host: HostWorld, between: str) -> None:
    claim(host, op="op", key=f"a{between}b")
    assert claim(host, op=f"op{between}a", key="b") == Fresh()


def test_a_claim_whose_holder_died_lapses(host: HostWorld) -> None:
    claim(host)
    host.clock.now += LEASE_SECONDS
    assert claim(host, replace(ALICE, correlation_id="request-2")) == Fresh()


def test_a_holder_whose_claim_lapsed_cannot_finish_or_release_the_next_ones(host: HostWorld) -> None:
    second = replace(ALICE, correlation_id="request-2")
    claim(host)
    host.clock.now += LEASE_SECONDS
    claim(host, second)
    with pytest.raises(UnavailableError):
        finish(host)
    release(host)
    finish(host, second, b"second")
    assert claim(host) == Done(b"second")


def test_a_released_claim_is_free_and_a_finished_one_stays(host: HostWorld) -> None:
    claim(host)
    release(host)
    assert claim(host) == Fresh()
    finish(host)
    release(host)
    assert claim(host) == Done(b"result")


def test_finishing_without_a_claim_is_refused(host: HostWorld) -> None:
    with pytest.raises(UnavailableError):
        finish(host)


def test_results_are_forgotten_when_their_time_is_over(host: HostWorld) -> None:
    claim(host)
    finish(host)
    host.clock.now += KEPT_SECONDS
    assert claim(host) == Done(b"result")
    host.clock.now += 1
    assert claim(host) == Fresh()


def test_a_key_that_was_claimed_again_is_kept_its_own_time(host: HostWorld) -> None:
    claim(host)
    release(host)
    host.clock.now += KEPT_SECONDS - 1
    claim(host)
    finish(host)
    host.clock.now += 2
    assert claim(host) == Done(b"result")


def test_a_result_armed_again_by_the_databases_owner_is_found(host: HostWorld) -> None:
    claim(host)
    finish(host)
    host.pen("""UPDATE idempotency SET content = replace(content, '"done"', '"in_progress"')""")
    with pytest.raises(TamperedError):
        claim(host)


def test_a_key_that_is_not_unicode_is_refused(host: HostWorld) -> None:
    with pytest.raises(ConfigurationError):
        claim(host, key="\ud800")


def test_of_many_at_once_one_has_the_effect(host: HostWorld) -> None:
    barrier = threading.Barrier(8)

    def race(number: int) -> bool:
        who = replace(ALICE, correlation_id=f"request-{number}")
        barrier.wait()
        try:
            return claim(host, who) == Fresh()
        except UnavailableError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1


def test_the_hash_of_a_request_is_keyed_for_the_tenant(host: HostWorld) -> None:
    claim(host)
    claim(host, caller("alice", tenant="globex"))
    contents = [json.loads(content) for [content] in host.pen("SELECT content FROM idempotency")]
    assert len({content["request"] for content in contents}) == 2
