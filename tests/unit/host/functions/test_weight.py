"""Messages that would grow in the host's memory are counted before they are decoded."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_host.functions.weight import UnfitError, check_weight, walk

json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
)


def count(value: Any) -> tuple[int, int]:
    """Values and containers."""
    if isinstance(value, list | dict):
        members = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        inner = [count(member) for member in members]
        return 1 + sum(v for v, _ in inner), 1 + sum(c for _, c in inner)
    return 1, 0


@given(json_like)
def test_values_are_counted_as_they_are(value: Any) -> None:
    message = msgspec.msgpack.encode(value)
    values, containers = count(value)
    walk(message, max_values=values, max_containers=containers)
    with pytest.raises(UnfitError):
        walk(message, max_values=values - 1, max_containers=containers)
    if containers:
        with pytest.raises(UnfitError):
            walk(message, max_values=values, max_containers=containers - 1)


@given(st.binary(max_size=300))
def test_random_bytes_are_counted_or_refused(message: bytes) -> None:
    with contextlib.suppress(UnfitError):
        walk(message, max_values=1000, max_containers=1000)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd" + (1 << 24).to_bytes(4, "big") + b"\x90" * (1 << 24),
        b"\xdd" + (1 << 24).to_bytes(4, "big") + b"\x80" * (1 << 24),
        b"\xdd" + (1 << 24).to_bytes(4, "big") + b"\xa1x" * (1 << 24),
        b"\xdd\xff\xff\xff\xff" + bytes(1 << 20),
        b"\xdf\xff\xff\xff\xff" + bytes(1 << 20),
        b"\x91" * (1 << 20) + b"\x00",
        b"\xdc\x00\x64" + (b"\xdc\xff\xff" + b"\x90" * 65535) * 100,
    ],
    ids=["lists", "maps", "strings", "announced list", "announced map", "nested", "lists of lists"],
)
def test_a_small_message_that_would_become_large_is_refused(bomb: bytes) -> None:
    with pytest.raises(UnfitError):
        check_weight(bomb)


def test_large_honest_results_pass() -> None:
    check_weight(msgspec.msgpack.encode("x" * (30 << 20)))
    check_weight(msgspec.msgpack.encode([True] * 1_000_000))
    check_weight(msgspec.msgpack.encode([{"a": 1.5, "b": "text"}] * 100_000))


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8, 16, 255, 300, 70_000])
def test_extensions_are_no_data(size: int) -> None:
    message = msgspec.msgpack.encode(["returned", [1, msgspec.msgpack.Ext(5, bytes(size))]])
    with pytest.raises(UnfitError):
        check_weight(message)


def test_a_time_is_no_data() -> None:
    with pytest.raises(UnfitError):
        check_weight(msgspec.msgpack.encode(["returned", datetime(2026, 1, 1, tzinfo=UTC)]))


def test_text_in_other_scripts_is() -> None:
    check_weight(msgspec.msgpack.encode(["returned", "Привет, \u01ff\u0250\u0540\u05d0" * 100]))
