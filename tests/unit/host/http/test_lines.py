"""Which line a request waits in: a tenant's own is for those who have proven to be of it."""

from __future__ import annotations

from cloister_host.http.lines import _REMEMBERED, STRANGERS, Lines

KEY = {"type": "api-key", "value": "clk_one"}


def test_what_was_never_accepted_waits_with_strangers() -> None:
    lines = Lines()
    assert lines.of("acme", KEY) == STRANGERS
    lines.proven("acme", KEY)
    assert lines.of("acme", KEY) == "acme"
    assert lines.of("acme", {**KEY, "value": "clk_two"}) == STRANGERS
    assert lines.of("other", KEY) == STRANGERS


def test_what_is_accepted_no_longer_is_a_stranger_again() -> None:
    lines = Lines()
    lines.proven("acme", KEY)
    lines.refused("acme", KEY)
    lines.refused("acme", KEY)
    assert lines.of("acme", KEY) == STRANGERS


def test_a_certificate_is_known_again_whatever_it_signed() -> None:
    lines = Lines()
    lines.proven("acme", {"type": "mtls", "chain": ["leaf", "root"], "jws": "first"})
    assert lines.of("acme", {"type": "mtls", "chain": ["leaf", "root"], "jws": "second"}) == "acme"
    assert lines.of("acme", {"type": "mtls", "chain": ["other", "root"], "jws": "first"}) == STRANGERS


def test_it_keeps_no_credential_and_not_too_many_digests() -> None:
    lines = Lines()
    for number in range(_REMEMBERED + 10):
        lines.proven("acme", {"type": "api-key", "value": f"clk_{number}"})
    assert len(lines._proven) == _REMEMBERED
    assert not any(b"clk_" in digest for digest in lines._proven)
    assert lines.of("acme", {"type": "api-key", "value": "clk_0"}) == STRANGERS
