"""Each request below is good but for one thing, and that one thing is what it is refused for."""

from __future__ import annotations

import pytest

from cloister.proxy.guard import Guard, host_names
from cloister.proxy.problems import RefusedError
from cloister.secret import Secret

TOKEN = "Zm9vYmFy"
GOOD = {
    b"host": b"127.0.0.1:8788",
    b"authorization": f"Bearer {TOKEN}".encode(),
    b"content-type": b"application/json",
}
GUARD = Guard(token=Secret(TOKEN.encode()), hosts=host_names(("127.0.0.1", "localhost", "[::1]"), 8788))


def refusal(changed=None, *, twice=b"", **how):
    headers = [*{**GOOD, **(changed or {})}.items()]
    headers += [(name, value) for name, value in headers if name == twice]
    with pytest.raises(RefusedError) as refused:
        GUARD.admit([(name, value) for name, value in headers if value is not None], with_json=True, **how)
    return refused.value


@pytest.mark.parametrize("host", [b"127.0.0.1:8788", b"localhost:8788", b"LOCALHOST:8788", b"[::1]:8788"])
def test_a_good_request_is_let_through(host):
    GUARD.admit({**GOOD, b"host": host}.items(), with_json=True)
    GUARD.admit({**GOOD, b"content-type": b"Application/JSON; charset=UTF-8"}.items(), with_json=True)


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"attacker.example",
        b"attacker.example:8788",
        b"127.0.0.1",
        b"127.0.0.1:80",
        b"127.0.0.1:8788.x",
    ],
)
def test_a_name_that_was_rebound_to_loopback_is_refused(host):
    assert refusal({b"host": host}).code == "proxy-host"


def test_two_hosts_are_none():
    assert refusal(twice=b"host").code == "proxy-host"


@pytest.mark.parametrize(
    "header", [b"origin", b"Origin", b"sec-fetch-site", b"access-control-request-method"]
)
@pytest.mark.parametrize("value", [b"http://127.0.0.1:8788", b"null", b"same-origin"])
def test_a_web_page_is_refused_even_with_the_token(header, value):
    assert refusal({header: value}).code == "proxy-browser"


@pytest.mark.parametrize(
    "shown",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer Zm9vYmF",
        b"Bearer Zm9vYmFyZm9v",
        b"Bearer zm9vymfy",
        b"Basic Zm9vYmFy",
        b"Zm9vYmFy",
        b"Bearer \xff",
    ],
)
def test_without_the_token_nothing_is_done(shown):
    refused = refusal({b"authorization": shown})
    assert (refused.code, refused.status) == ("proxy-token", 401)


def test_two_tokens_are_none():
    assert refusal(twice=b"authorization").code == "proxy-token"


@pytest.mark.parametrize(
    "content_type",
    [None, b"", b"text/plain", b"application/x-www-form-urlencoded", b"application/json; charset=latin-1"],
)
def test_a_body_that_a_form_could_send_is_refused(content_type):
    assert refusal({b"content-type": content_type}).code == "proxy-content-type"


def test_a_compressed_body_is_refused():
    assert refusal({b"content-encoding": b"gzip"}).code == "proxy-content-type"


def test_health_needs_no_token_but_still_the_right_name():
    GUARD.admit({b"host": b"localhost:8788"}.items(), with_token=False)
    assert refusal({b"authorization": None, b"host": b"a.example"}, with_token=False).code == "proxy-host"


def test_the_guard_does_not_show_the_token():
    assert TOKEN not in repr(GUARD)
