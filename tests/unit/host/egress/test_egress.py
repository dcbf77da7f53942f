"""Calls to a real HTTPS server, and everything that must not get through."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError, UnavailableError
from cloister.function.egress import OriginRule
from cloister.secret import Secret
from cloister_host.egress import Egress, EgressDoor, EgressSettings
from cloister_host.egress.addresses import Address
from cloister_host.functions.frames import Answer, Ask
from cloister_host.secrets import SecretValue
from support.https import Answered, HttpsServer, Received, https_server

LOOPBACK: Sequence[Address] = [ipaddress.ip_address("127.0.0.1")]


@pytest.fixture
def partner() -> Iterator[HttpsServer]:
    with https_server("partner.example") as server:
        yield server


class Outside:
    """An `Egress` whose names all lead to this machine, and doors through it."""

    def __init__(self, partner: HttpsServer) -> None:
        self.partner = partner
        self.addresses: Sequence[Address] = LOOPBACK
        self.resolved: list[str] = []
        self.slept: list[float] = []
        self.egress = self.build(trust_anchors=partner.trust_anchor, allow_private_addresses=True)

    def build(self, **settings: Any) -> Egress:
        return Egress(EgressSettings(**settings), resolve=self._resolve, sleep=self.slept.append)

    def _resolve(self, host: str, timeout_seconds: float) -> Sequence[Address]:
        self.resolved.append(host)
        return self.addresses

    def door(
        self,
        *,
        egress: Egress | None = None,
        tenant: str = "acme",
        digest: str = "d1",
        host: str = "partner.example",
        version: int = 1,
        secrets: bool = False,
        certificate_pem: bytes | None = None,
        **rule: Any,
    ) -> EgressDoor:
        headers = {"X-Api-Key": "api-key"} if secrets else {}
        certificate = SecretValue(version=version, value=Secret(certificate_pem or b""))
        declared = OriginRule(url=f"https://{host}:{self.partner.port}", secrets=headers, **rule)
        value = SecretValue(version=version, value=Secret(b"s3cr3t-4711"))
        return (egress or self.egress).door(
            tenant=tenant,
            digest=digest,
            rules={"partner": declared},
            secrets={"api-key": value, "certificate": certificate},
        )


@pytest.fixture
def outside(partner: HttpsServer) -> Iterator[Outside]:
    opened = Outside(partner)
    yield opened
    opened.egress.close()


def get(door: EgressDoor, path: str = "/", *, seconds: float = 10, **members: Any) -> Answer:
    request = {"params": {}, "headers": {}, "body": b"", "method": "GET", "origin": "partner", **members}
    return door.ask(Ask(path=path, **request), deadline=time.monotonic() + seconds)


# --- what gets through ------------------------------------------------------------------------------


def test_a_request_arrives_as_asked_and_the_answer_comes_back(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(status=404, headers={"X-Kind": "odd"}, body=b"no")
    answer = get(outside.door(), "/a/b", params={"q": "1 & 2"}, headers={"X-Own": "v"})
    assert (answer.status, answer.headers["x-kind"], answer.body) == (404, "odd", b"no")
    received = partner.received[0]
    assert (received.method, received.path) == ("GET", "/a/b?q=1+%26+2")
    assert received.headers["host"] == f"partner.example:{partner.port}"
    assert received.headers["x-own"] == "v"


def test_a_post_carries_its_body_once(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(status=503)
    with pytest.raises(UnavailableError):
        get(outside.door(), "/a", method="POST", body=b'{"x":1}')
    assert [received.body for received in partner.received] == [b'{"x":1}']


def test_the_host_adds_secrets(outside: Outside, partner: HttpsServer) -> None:
    get(outside.door(secrets=True))
    assert partner.received[0].headers["x-api-key"] == "s3cr3t-4711"


def test_each_call_is_recorded_for_the_receipt(outside: Outside, partner: HttpsServer) -> None:
    door = outside.door()
    get(door)
    record = door.records[0]
    assert (record.origin, record.method, record.status, record.cached) == (
        f"https://partner.example:{partner.port}",
        "GET",
        200,
        False,
    )
    assert record.spki_sha256 == partner.spki_sha256


def test_a_call_without_an_answer_is_recorded_too(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(status=503)
    door = outside.door()
    with pytest.raises(UnavailableError):
        get(door, method="POST")
    with pytest.raises(ConfigurationError):
        get(door, "//elsewhere")
    assert [(record.method, record.status) for record in door.records] == [("POST", 0)]


def test_connections_are_kept_for_the_next_call(outside: Outside) -> None:
    door = outside.door()
    for _ in range(3):
        get(door)
    assert len(outside.resolved) == 1


# --- whom we speak to -------------------------------------------------------------------------------


def test_an_unknown_authority_is_not_trusted(outside: Outside, partner: HttpsServer) -> None:
    egress = outside.build(allow_private_addresses=True)
    with pytest.raises(UnavailableError):
        get(outside.door(egress=egress))
    assert partner.received == []
    egress.close()


def test_a_certificate_for_another_name_is_not_trusted(outside: Outside, partner: HttpsServer) -> None:
    with pytest.raises(UnavailableError):
        get(outside.door(host="other.example"))
    assert partner.received == []


def test_the_pinned_key_is_accepted(outside: Outside, partner: HttpsServer) -> None:
    assert get(outside.door(spki_sha256=("0" * 64, partner.spki_sha256))).status == 200


def test_another_key_than_the_pinned_one_gets_no_request(outside: Outside, partner: HttpsServer) -> None:
    with pytest.raises(DeniedError, match="another key"):
        get(outside.door(spki_sha256=("0" * 64,), secrets=True))
    assert partner.received == []


def test_a_private_address_is_refused_unless_switched_on(outside: Outside, partner: HttpsServer) -> None:
    egress = outside.build(trust_anchors=partner.trust_anchor)
    with pytest.raises(DeniedError, match="not public"):
        get(outside.door(egress=egress))
    assert partner.received == []
    egress.close()


def test_the_switch_shows() -> None:
    assert EgressSettings(allow_private_addresses=True).debug_switches == ("egress.allow_private_addresses",)
    assert EgressSettings().debug_switches == ()


def test_one_private_address_among_public_ones_refuses_the_name(
    outside: Outside, partner: HttpsServer
) -> None:
    outside.addresses = [ipaddress.ip_address("93.184.215.14"), *LOOPBACK]
    egress = outside.build(trust_anchors=partner.trust_anchor)
    with pytest.raises(DeniedError, match="not public"):
        get(outside.door(egress=egress))
    egress.close()


def test_a_name_is_resolved_once_and_only_that_answer_is_connected_to(
    outside: Outside, partner: HttpsServer
) -> None:
    get(outside.door())
    # DNS rebinding: from now on the name leads elsewhere, to where nothing answers.
    outside.addresses = [ipaddress.ip_address("127.0.0.2")]
    assert get(outside.door()).status == 200
    assert outside.resolved == ["partner.example"]


def test_an_origin_that_was_not_declared_is_refused(outside: Outside) -> None:
    with pytest.raises(ConfigurationError, match="did not declare"):
        get(outside.door(), origin="other")


def test_proxies_of_the_environment_are_ignored(
    outside: Outside, partner: HttpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(outside.door()).status == 200
    assert len(partner.received) == 1


def test_keys_of_connections_are_not_logged_where_the_environment_says(
    outside: Outside, partner: HttpsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    egress = outside.build(trust_anchors=partner.trust_anchor, allow_private_addresses=True)
    get(outside.door(egress=egress))
    egress.close()
    assert not (tmp_path / "keys").exists()


# --- what may be asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "//evil.example/",
        "https://evil.example/",
        "/a b",
        "/a\r\nHost: evil.example",
        "/a#b",
        "/ä",
        "/a%2",
        "/a\x00",
        "/a\\b",
    ],
)
def test_a_path_that_could_mean_something_else_is_refused(
    outside: Outside, partner: HttpsServer, path: str
) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        get(outside.door(), path)
    assert partner.received == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"x-api-key": "mine"},
        {"X-A": "b\r\nX-C: d"},
        {"X-A\r\nX-B": "c"},
        {"X-A": "ä"},
        {"X-A": " b"},
        {"X-A": "b" * 9000},
        {"X-A": "1", "x-a": "2"},
        {f"X-{number}": "v" for number in range(33)},
    ],
)
def test_a_header_that_frames_repeats_or_takes_a_secrets_place_is_refused(
    outside: Outside, partner: HttpsServer, headers: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match="header"):
        get(outside.door(secrets=True), headers=headers)
    assert partner.received == []


def test_another_method_is_refused(outside: Outside) -> None:
    with pytest.raises(ConfigurationError, match="GET or POST"):
        get(outside.door(), method="CONNECT")


def test_a_request_that_is_too_large_is_refused(outside: Outside) -> None:
    with pytest.raises(LimitError):
        get(outside.door(), method="POST", body=bytes(5 << 20))
    with pytest.raises(LimitError):
        get(outside.door(), params={"q": "x" * 9000})


@pytest.mark.parametrize("value", [b"", b"a\r\nb", "ä".encode(), b" a"])
def test_a_secret_that_cannot_be_a_header_is_not_sent(
    outside: Outside, partner: HttpsServer, value: bytes
) -> None:
    door = outside.egress.door(
        tenant="acme",
        digest="d1",
        rules={"partner": OriginRule(url=f"https://partner.example:{partner.port}", secrets={"X-K": "k"})},
        secrets={"k": SecretValue(version=1, value=Secret(value))},
    )
    with pytest.raises(ConfigurationError, match="secret for X-K"):
        get(door)
    assert partner.received == []


# --- what may come back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answered",
    [
        Answered(body=b"your key is s3cr3t-4711!"),
        Answered(headers={"X-Echo": "s3cr3t-4711"}),
        Answered(status=500, body=b"s3cr3t-4711"),
    ],
)
def test_an_answer_that_repeats_a_secret_is_withheld(
    outside: Outside, partner: HttpsServer, answered: Answered
) -> None:
    partner.answer = lambda _: answered
    with pytest.raises(DeniedError, match="repeats a secret") as caught:
        get(outside.door(secrets=True))
    assert "4711" not in str(caught.value)


def test_a_redirect_is_an_answer_and_is_not_followed(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(status=302, headers={"Location": "http://169.254.169.254/"})
    answer = get(outside.door(secrets=True))
    assert answer.status == 302
    assert len(partner.received) == 1


def test_an_answer_that_is_too_large_is_refused(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(body=b"x" * 2000)
    assert get(outside.door(max_response_bytes=2000)).body == b"x" * 2000
    with pytest.raises(LimitError, match="too large"):
        get(outside.door(max_response_bytes=1999))


def test_packed_bodies_are_not_unpacked(outside: Outside, partner: HttpsServer) -> None:
    import gzip

    bomb = gzip.compress(bytes(1 << 20))
    partner.answer = lambda _: Answered(headers={"Content-Encoding": "gzip"}, body=bomb)
    assert get(outside.door()).body == bomb
    assert partner.received[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n" * 9999,
    ],
)
def test_an_answer_that_is_not_http_is_no_answer(outside: Outside, partner: HttpsServer, raw: bytes) -> None:
    partner.answer = lambda _: Answered(raw=raw)
    with pytest.raises(UnavailableError):
        get(outside.door())


def test_an_answer_in_drops_ends_at_the_deadline(outside: Outside, partner: HttpsServer) -> None:
    def drop(_: Received) -> Answered:
        time.sleep(30)
        return Answered()

    partner.answer = drop
    with pytest.raises(UnavailableError):
        get(outside.door(), seconds=0.3)


# --- again, and not again ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_not_now_is_asked_again_and_then_answered(
    outside: Outside, partner: HttpsServer, status: int
) -> None:
    answers = iter([Answered(status=status), Answered(status=status), Answered(body=b"now")])
    partner.answer = lambda _: next(answers)
    assert get(outside.door()).body == b"now"
    assert len(outside.slept) == 2


def test_it_is_asked_three_times_at_most(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(status=503)
    with pytest.raises(UnavailableError):
        get(outside.door())
    assert len(partner.received) == 3


def test_an_origin_that_keeps_failing_is_left_alone(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(status=503)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            get(outside.door())
    asked = len(partner.received)
    with pytest.raises(UnavailableError, match="failed repeatedly"):
        get(outside.door())
    assert len(partner.received) == asked
    # Another tenant is not kept from it.
    with pytest.raises(UnavailableError, match="cannot answer now"):
        get(outside.door(tenant="rival"))


# --- answers used again -----------------------------------------------------------------------------


def test_an_answer_is_used_again_while_it_is_fresh(outside: Outside, partner: HttpsServer) -> None:
    door = outside.door(cache_seconds=60)
    assert get(door) == get(door)
    assert len(partner.received) == 1
    assert [record.cached for record in door.records] == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "rival"},
        {"digest": "d2"},
        {"version": 2},
    ],
)
def test_an_answer_is_not_shared_between(
    outside: Outside, partner: HttpsServer, change: dict[str, Any]
) -> None:
    get(outside.door(cache_seconds=60, secrets=True))
    get(outside.door(cache_seconds=60, secrets=True, **change))
    assert len(partner.received) == 2


@pytest.mark.parametrize("change", [{"params": {"a": "b"}}, {"headers": {"accept": "x"}}, {"path": "/other"}])
def test_another_question_is_asked(outside: Outside, partner: HttpsServer, change: dict[str, Any]) -> None:
    door = outside.door(cache_seconds=60)
    get(door)
    get(door, **change)
    assert len(partner.received) == 2


@pytest.mark.parametrize(
    "answered",
    [
        Answered(headers={"Cache-Control": "no-store"}),
        Answered(headers={"Cache-Control": "max-age=0"}),
        Answered(headers={"Cache-Control": "no-cache"}),
        Answered(headers={"Vary": "*"}),
        Answered(status=404),
    ],
)
def test_what_the_origin_does_not_want_kept_is_asked_again(
    outside: Outside, partner: HttpsServer, answered: Answered
) -> None:
    partner.answer = lambda _: answered
    door = outside.door(cache_seconds=60)
    get(door)
    get(door)
    assert len(partner.received) == 2


def test_without_a_declaration_nothing_is_kept(outside: Outside, partner: HttpsServer) -> None:
    partner.answer = lambda _: Answered(headers={"Cache-Control": "max-age=3600"})
    get(outside.door())
    get(outside.door())
    assert len(partner.received) == 2


def test_a_stale_answer_is_confirmed_by_its_etag(outside: Outside, partner: HttpsServer) -> None:
    def answer(received: Received) -> Answered:
        if received.headers.get("if-none-match") == '"v1"':
            return Answered(status=304)
        return Answered(headers={"ETag": '"v1"', "Cache-Control": "no-cache"}, body=b"list")

    partner.answer = answer
    door = outside.door(cache_seconds=60)
    assert get(door).body == get(door).body == b"list"
    assert len(partner.received) == 2
    # The confirmation did not say "no-cache", so it is fresh for as long as was declared.
    assert get(door).body == b"list"
    assert len(partner.received) == 2


def test_a_failed_call_is_not_an_error_of_another_kind(outside: Outside, partner: HttpsServer) -> None:
    outside.addresses = []
    with pytest.raises(CloisterError):
        get(outside.door())


# --- client certificates ----------------------------------------------------------------------------


@pytest.fixture
def mutual() -> Iterator[HttpsServer]:
    with https_server("partner.example", mutual=True) as server:
        yield server


def test_an_origin_that_asks_for_a_certificate_is_shown_it(mutual: HttpsServer) -> None:
    outside = Outside(mutual)
    door = outside.door(certificate_pem=mutual.client_pem, client_certificate="certificate")
    assert get(door).status == 200
    assert door.records[0].spki_sha256 == mutual.spki_sha256
    outside.egress.close()


def test_without_its_certificate_such_an_origin_does_not_answer(mutual: HttpsServer) -> None:
    outside = Outside(mutual)
    with pytest.raises(UnavailableError):
        get(outside.door())
    assert mutual.received == []
    outside.egress.close()


def test_a_new_version_of_the_certificate_has_connections_of_its_own(mutual: HttpsServer) -> None:
    outside = Outside(mutual)
    get(outside.door(certificate_pem=mutual.client_pem, client_certificate="certificate"))
    with pytest.raises(ConfigurationError, match="client certificate"):
        get(outside.door(certificate_pem=b"rubbish", client_certificate="certificate", version=2))
    outside.egress.close()


@pytest.mark.parametrize("cut", [b"PRIVATE KEY", b"BEGIN CERTIFICATE"])
def test_a_certificate_that_cannot_be_used_is_not_quoted(
    outside: Outside, partner: HttpsServer, cut: bytes
) -> None:
    broken = partner.client_pem.replace(cut, b"NOTHING")
    with pytest.raises(ConfigurationError) as refused:
        get(outside.door(certificate_pem=broken, client_certificate="certificate"))
    assert "NOTHING" not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert partner.received == []
