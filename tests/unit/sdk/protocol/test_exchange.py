"""Sealed requests and replies: who can open what, when, and how long it looks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister import jose
from cloister.errors import CloisterError, LimitError, OpenError
from cloister.protocol import (
    KeysetKey,
    open_reply,
    open_request,
    request_kid,
    seal_reply,
    seal_request,
)
from cloister.protocol.padding import pad, padded_length

NOW = 1_800_000_000
BODY = {"op": "x", "payload": {"a": 1}}


@pytest.fixture(scope="module")
def private():
    return jose.generate_key("HPKE-10-KE", kid="r1")


@pytest.fixture(scope="module")
def key(private):
    return KeysetKey(
        role="request", kid="r1", jwk=private.public().to_jwk(), not_before=NOW, expires=NOW + 86_400
    )


def _open(token, private, *, now=NOW):
    jwe, kid = request_kid(token)
    assert kid == "r1"
    return open_request(jwe, token=token, key=private, now=now)


def test_the_host_opens_what_was_sealed_and_the_client_opens_the_reply(private, key):
    request = seal_request(BODY, key=key, now=NOW)
    opened = _open(request.token, private)
    assert opened.body == BODY
    assert opened.jti == request.jti
    assert open_reply(seal_reply({"result": {}}, request=opened), request=request) == {"result": {}}


def test_two_requests_never_look_alike(key):
    one, two = (seal_request(BODY, key=key, now=NOW) for _ in range(2))
    assert one.token != two.token
    assert one.jti != two.jti


def test_a_reply_to_another_request_does_not_open(private, key):
    mine, other = (seal_request(BODY, key=key, now=NOW) for _ in range(2))
    reply = seal_reply({"result": {}}, request=_open(other.token, private))
    with pytest.raises(OpenError):
        open_reply(reply, request=mine)


def test_a_request_to_another_key_does_not_open(key):
    request = seal_request(BODY, key=key, now=NOW)
    with pytest.raises(OpenError):
        _open(request.token, jose.generate_key("HPKE-10-KE", kid="r1"))


@pytest.mark.parametrize("now", [NOW - 120, NOW + 300 + 120])
def test_a_request_outside_its_time_is_refused(private, key, now):
    request = seal_request(BODY, key=key, now=NOW)
    with pytest.raises(LimitError):
        _open(request.token, private, now=now)


def test_a_request_that_asks_to_live_too_long_is_refused(private):
    token = jose.encrypt_compact(
        pad(b"{}"),
        private.public(),
        typ="cloister-request+jwe",
        headers={"jti": "A" * 22, "iat": NOW, "exp": NOW + 301},
        info=b"cloister.request.v1",
    )
    with pytest.raises(LimitError, match="live too long"):
        _open(token, private)


@pytest.mark.parametrize("missing", ["jti", "iat", "exp"])
def test_a_request_without_its_header_is_refused(private, missing):
    headers = {"jti": "A" * 22, "iat": NOW, "exp": NOW + 60}
    del headers[missing]
    token = jose.encrypt_compact(
        pad(b"{}"),
        private.public(),
        typ="cloister-request+jwe",
        headers=headers,
        info=b"cloister.request.v1",
    )
    with pytest.raises(OpenError):
        _open(token, private)


def test_a_value_sealed_for_another_use_is_not_a_request(private):
    token = jose.encrypt_compact(b"{}", private.public(), typ="cloister-value+jwe")
    with pytest.raises(OpenError):
        request_kid(token)


def test_replies_of_one_bucket_have_one_length(private, key):
    opened = _open(seal_request(BODY, key=key, now=NOW).token, private)
    lengths = {len(seal_reply({"result": value}, request=opened)) for value in (True, False, "x" * 200)}
    assert len(lengths) == 1


@given(st.integers(0, 1 << 24))
def test_padding_never_shrinks_and_has_few_lengths(length):
    padded = padded_length(length)
    assert padded >= max(length, 256)
    assert padded % 256 == 0
    assert padded <= 4096 or padded & (padded - 1) == 0


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
@settings(max_examples=300)
def test_random_bytes_are_refused_with_our_errors(raw):
    with pytest.raises(CloisterError):
        request_kid(raw.decode("latin-1"))


@given(st.integers(0, 10_000), st.characters(max_codepoint=127))
@settings(max_examples=100)
def test_a_changed_character_of_a_reply_is_refused(position, character):
    private = _KEYS["private"]
    request = _KEYS["request"]
    reply = seal_reply({"result": {}}, request=_open(request.token, private))
    position %= len(reply)
    changed = reply[:position] + character + reply[position + 1 :]
    if changed != reply:
        with pytest.raises(OpenError):
            open_reply(changed, request=request)


_KEYS: dict = {}


@pytest.fixture(autouse=True, scope="module")
def _shared(private, key):
    _KEYS.update(private=private, request=seal_request(BODY, key=key, now=NOW))
