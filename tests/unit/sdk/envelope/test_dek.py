"""Data keys: what they seal, and the limits they keep."""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cloister.envelope import (
    DataKey,
    Dek,
    DekCache,
    OpenCache,
    Sealed,
    drop_data_keys,
    open_with,
    recover_cek,
)
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose import b64url_decode, b64url_encode, generate_key, wrap_key
from cloister.secret import Secret

KEY = generate_key("A256KW", kid="ssn.1")


def data_key(**limits: Any) -> DataKey:
    dek = Secret(os.urandom(32))
    return DataKey(kid="ssn.1", dek=dek, encrypted_key=wrap_key(dek, KEY), **limits)


@pytest.mark.parametrize(
    "value", [b"", b"\xff", "", "078-05-1120", "\u20ac", None, True, 0, 1.5, [], {"a": [1, None]}]
)
@pytest.mark.parametrize("context", [None, {}, {"member_id": "7"}])
def test_a_value_comes_back_with_its_type(value: Any, context: dict[str, str] | None) -> None:
    dek = Dek(data_key(), now=0)
    sealed = dek.seal(value, context)
    for opened in (
        dek.open(sealed, context),
        open_with(sealed, KEY, context),
        open_with(str(sealed), KEY, context),
    ):
        assert opened == value
        assert type(opened) is type(value)


def test_every_value_has_an_iv_of_its_own() -> None:
    dek = Dek(data_key(), now=0)
    assert len({dek.seal("x").split(".")[2] for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("bound", "given"),
    [
        (None, {}),
        ({}, None),
        ({"a": "1"}, None),
        (None, {"a": "1"}),
        ({"a": "1"}, {}),
        ({"a": "1"}, {"a": "2"}),
    ],
)
def test_another_context_does_not_open(bound: dict[str, str] | None, given: dict[str, str] | None) -> None:
    dek = Dek(data_key(), now=0)
    with pytest.raises(OpenError) as refused:
        dek.open(dek.seal("x", bound), given)
    assert str(refused.value) == "the value did not open"


def test_the_context_is_a_mapping_not_an_order() -> None:
    dek = Dek(data_key(), now=0)
    assert dek.open(dek.seal("x", {"b": "2", "a": "1"}), {"a": "1", "b": "2"}) == "x"


@pytest.mark.parametrize(
    "context", [{"a": 1}, {1: "a"}, {"a": None}, {"a": {"b": "c"}}, ["a"], "a", {"a": "\ud800"}]
)
def test_a_context_that_is_not_flat_text_is_refused(context: Any) -> None:
    dek = Dek(data_key(), now=0)
    with pytest.raises(ConfigurationError, match="flat mapping"):
        dek.seal("x", context)


def test_a_context_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most"):
        Dek(data_key(), now=0).seal("x", {"a": "x" * 16384})


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "value",
    [
        {1: "a"},
        {"a": {None: 1}},
        [float("nan")],
        float("inf"),
        "\ud800",
        ["\ud800"],
        object(),
        {"a": b"x"},
        _cycle(),
    ],
    ids=range(9),
)
def test_a_value_that_would_not_come_back_is_refused_before_it_is_counted(value: Any) -> None:
    dek = Dek(data_key(max_messages=1), now=0)
    with pytest.raises(ConfigurationError):
        dek.seal(value)
    dek.seal("counts")


def test_a_sealed_value_is_not_sealed_twice() -> None:
    dek = Dek(data_key(), now=0)
    with pytest.raises(ConfigurationError, match="already"):
        dek.seal(dek.seal("x"))


def test_a_value_that_is_too_long_is_refused() -> None:
    with pytest.raises(LimitError, match="at most"):
        Dek(data_key(), now=0).seal(bytes(32 * 1024 * 1024 + 1))


def test_the_count_of_values_is_strict() -> None:
    dek = Dek(data_key(max_messages=2), now=0)
    dek.seal("1")
    dek.seal("2")
    with pytest.raises(LimitError, match="lease another"):
        dek.seal("3")


def test_the_count_of_bytes_is_strict_and_a_refusal_costs_nothing() -> None:
    dek = Dek(data_key(max_bytes=10), now=0)
    dek.seal(bytes(6))
    with pytest.raises(LimitError):
        dek.seal(bytes(5))
    dek.seal(bytes(4))
    with pytest.raises(LimitError):
        dek.seal(b"x")


def test_threads_together_keep_the_limit() -> None:
    dek = Dek(data_key(max_messages=500), now=0)
    sealed: list[Sealed] = []

    def work() -> None:
        for _ in range(200):
            try:
                sealed.append(dek.seal("x"))
            except LimitError:
                return

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(sealed) == 500


def test_counting_waits_for_its_turn() -> None:
    dek = Dek(data_key(), now=0)
    thread = threading.Thread(target=dek.seal, args=("x",))
    with dek._lock:
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        assert dek._sealed.messages == 0
    thread.join()
    assert dek._sealed.messages == 1


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "ssn"},
        {"kid": "ssn.0"},
        {"dek": Secret(bytes(16))},
        {"encrypted_key": bytes(39)},
        {"max_messages": 0},
        {"max_messages": 2**24 + 1},
        {"max_bytes": 0},
        {"max_bytes": 2**36 + 1},
        {"max_age_seconds": 0},
        {"max_age_seconds": 86401},
        {"max_age_seconds": float("nan")},
    ],
    ids=str,
)
def test_a_data_key_outside_the_protocol_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"kid": "ssn.1", "dek": Secret(bytes(32)), "encrypted_key": bytes(40)}
    DataKey(**good)
    with pytest.raises(ConfigurationError):
        DataKey(**good | change)


def test_nothing_shows_the_key() -> None:
    key = data_key()
    for shown in (repr(key), repr(Dek(key, now=0)), repr(Dek(key, now=0)._content)):
        assert repr(key.dek.reveal())[2:-1] not in shown


def test_a_lease_gives_the_key_of_the_key_and_its_context() -> None:
    cache = DekCache()
    plain = cache.add("ssn", None, data_key(), now=0)
    empty = cache.add("ssn", {}, data_key(), now=0)
    acme = cache.add("ssn", {"customer": "acme"}, data_key(), now=0)
    for context, dek in ((None, plain), ({}, empty), ({"customer": "acme"}, acme)):
        assert cache.lease("ssn", context, messages=1, size_bytes=1, now=0) is dek
    assert cache.lease("pan", None, messages=1, size_bytes=1, now=0) is None
    assert cache.lease("ssn", {"customer": "other"}, messages=1, size_bytes=1, now=0) is None


@pytest.mark.parametrize("now", [-1.0, 60.0, 1e9])
def test_a_key_is_leased_within_its_age_only(now: float) -> None:
    cache = DekCache()
    cache.add("ssn", None, data_key(max_age_seconds=60), now=0)
    assert cache.lease("ssn", None, messages=1, size_bytes=1, now=59.9)
    assert cache.lease("ssn", None, messages=1, size_bytes=1, now=now) is None


def test_leases_share_the_limit_and_a_batch_that_does_not_fit_leaves_room_for_one_that_does() -> None:
    cache = DekCache()
    cache.add("ssn", None, data_key(max_messages=10, max_bytes=100), now=0)
    assert cache.lease("ssn", None, messages=6, size_bytes=60, now=0)
    assert cache.lease("ssn", None, messages=5, size_bytes=1, now=0) is None
    assert cache.lease("ssn", None, messages=1, size_bytes=41, now=0) is None
    dek = cache.lease("ssn", None, messages=4, size_bytes=40, now=0)
    assert dek
    for _ in range(10):
        dek.seal(bytes(10))
    with pytest.raises(LimitError):
        dek.seal("")


def test_the_cache_is_bounded_and_forgets_the_least_recently_leased() -> None:
    cache = DekCache(max_entries=2)
    for name in ("a", "b"):
        cache.add(name, None, data_key(), now=0)
    assert cache.lease("a", None, messages=1, size_bytes=1, now=0)
    cache.add("c", None, data_key(), now=0)
    held = {name: cache.lease(name, None, messages=1, size_bytes=1, now=0) is not None for name in "abc"}
    assert held == {"a": True, "b": False, "c": True}


def _in_child(act: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if act() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_no_data_key_and_the_parent_keeps_its_own() -> None:
    cache, opened = DekCache(), OpenCache()
    key = data_key()
    dek = cache.add("ssn", None, key, now=0)
    opened.add("ssn.1", key.encrypted_key, key.dek, now=0)
    sealed = dek.seal("x")

    def child() -> bool:
        try:
            dek.seal("x")
        except LimitError:
            return (
                cache.lease("ssn", None, messages=1, size_bytes=1, now=0) is None
                and opened.get("ssn.1", key.encrypted_key, now=0) is None
                and not dek.lease(messages=1, size_bytes=1, now=0)
                and dek.open(sealed) == "x"
            )
        return False

    with cache._lock:  # a lock that is held at the fork must not stop the child
        assert _in_child(child)
    assert cache.lease("ssn", None, messages=1, size_bytes=1, now=0) is dek
    dek.seal("x")


def test_a_restored_snapshot_drops_data_keys_the_same_way() -> None:
    cache = DekCache()
    dek = cache.add("ssn", None, data_key(), now=0)
    drop_data_keys()
    assert cache.lease("ssn", None, messages=1, size_bytes=1, now=0) is None
    with pytest.raises(LimitError, match="fork or restore"):
        dek.seal("x")
    cache.add("ssn", None, data_key(), now=0).seal("x")


def test_clear_drops_every_key() -> None:
    cache = DekCache()
    cache.add("ssn", None, data_key(), now=0)
    cache.clear()
    assert cache.lease("ssn", None, messages=1, size_bytes=1, now=0) is None


def test_a_column_costs_one_unwrap() -> None:
    dek, cache = Dek(data_key(), now=0), OpenCache(max_age_seconds=60)
    sealed = dek.seal("x", {"row": "1"})
    assert cache.get(sealed.kid, sealed.encrypted_key, now=0) is None
    cache.add(sealed.kid, sealed.encrypted_key, recover_cek(sealed, KEY), now=0)
    other = dek.seal({"n": 2}, {"row": "2"})
    content = cache.get(other.kid, other.encrypted_key, now=59)
    assert content
    assert content.open(other, {"row": "2"}) == {"n": 2}
    with pytest.raises(OpenError):
        content.open(other, {"row": "1"})


def test_the_open_cache_is_bounded_in_age_and_number_and_asks_for_the_whole_name() -> None:
    cache = OpenCache(max_entries=2, max_age_seconds=60)
    for n in range(3):
        cache.add("ssn.1", bytes([n]), Secret(os.urandom(32)), now=0)
    assert cache.get("ssn.1", b"\0", now=0) is None
    assert cache.get("ssn.2", b"\1", now=0) is None
    assert cache.get("ssn.1", b"\1", now=59)
    assert cache.get("ssn.1", b"\1", now=60) is None
    assert cache.get("ssn.1", b"\2", now=-1) is None
    cache.add("ssn.1", b"\2", Secret(os.urandom(32)), now=0)
    cache.clear()
    assert cache.get("ssn.1", b"\2", now=0) is None


def test_a_data_key_opens_values_of_its_key_version_only() -> None:
    dek = Dek(data_key(), now=0)
    other = DataKey(kid="ssn.2", dek=Secret(os.urandom(32)), encrypted_key=bytes(40))
    with pytest.raises(OpenError):
        dek.open(Dek(other, now=0).seal("x"))
    with pytest.raises(OpenError):
        dek.open(Dek(data_key(), now=0).seal("x"))


def test_a_value_with_another_name_or_wrapped_key_is_not_the_data_keys_though_it_would_decrypt() -> None:
    key = data_key()
    dek = Dek(key, now=0)
    renamed = DataKey(kid="ssn.2", dek=key.dek, encrypted_key=key.encrypted_key)
    with pytest.raises(OpenError):
        dek.open(Dek(renamed, now=0).seal("x"))
    parts = dek.seal("x").split(".")
    parts[1] = b64url_encode(bytes(40))
    with pytest.raises(OpenError):
        dek.open(".".join(parts))


def test_the_wrapped_key_travels_with_the_value() -> None:
    key = data_key()
    sealed = Dek(key, now=0).seal("x")
    assert sealed.encrypted_key == key.encrypted_key == b64url_decode(sealed.split(".")[1])
