"""Egress through an enclave's parent, which is told names and sees ciphertext."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import CloisterError, DeniedError, UnavailableError
from cloister.function.egress import OriginRule
from cloister_host.egress import Egress, EgressDoor, EgressSettings
from cloister_host.egress.addresses import Address
from cloister_host.functions.frames import Answer, Ask
from cloister_host.relay import Endpoint
from cloister_host.relay.endpoint import Stream
from cloister_host.relay.parent import ParentProxy
from cloister_host.relay.relay import Relay, relaying
from support.https import Answered, HttpsServer, https_server

BODY = b"a value that nobody on the way may read"


class Parent:
    """A parent on a UNIX socket that keeps what it carries to the origin."""

    def __init__(self, path: Path) -> None:
        self.endpoint = Endpoint.parse(f"unix:{path}")
        self.connections = 0
        self._proxy = ParentProxy(allow_private=["partner.example:*", "evil.example:*"], lookup=self._lookup)
        self.relay = Relay(self.endpoint.listen(), self._connect)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Stream:
        self.connections += 1
        return await self._proxy.connect(reader, writer)

    @staticmethod
    async def _lookup(_host: str, _port: int) -> Sequence[Address]:
        return [ipaddress.ip_address("127.0.0.1")]


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    found = Parent(tmp_path / "parent")
    with relaying([found.relay]):
        yield found


@pytest.fixture
def partner() -> Iterator[HttpsServer]:
    with https_server("partner.example", mutual=False) as server:
        yield server


@pytest.fixture
def egress(parent: Parent, partner: HttpsServer) -> Iterator[Egress]:
    found = Egress(
        EgressSettings(trust_anchors=partner.trust_anchor, outbound=parent.endpoint), sleep=lambda _: None
    )
    yield found
    found.close()


def door(egress: Egress, partner: HttpsServer, host: str = "partner.example", **rule: Any) -> EgressDoor:
    declared = OriginRule(url=f"https://{host}:{partner.port}", **rule)
    return egress.door(tenant="acme", digest="d1", rules={"partner": declared}, secrets={})


def ask(found: EgressDoor, method: str = "POST", seconds: float = 30) -> Answer:
    asked = Ask(path="/", params={}, headers={}, body=BODY, method=method, origin="partner")
    return found.ask(asked, deadline=time.monotonic() + seconds)


def test_a_request_arrives_and_its_answer_comes_back(
    egress: Egress, partner: HttpsServer, parent: Parent
) -> None:
    partner.answer = lambda _: Answered(body=b"yes")
    found = door(egress, partner)
    assert [ask(found).body for _ in range(3)] == [b"yes"] * 3
    assert [received.body for received in partner.received] == [BODY] * 3
    assert found.records[0].spki_sha256 == partner.spki_sha256
    assert parent.connections == 1, "a connection is kept for the next call"


def test_the_origin_is_known_by_its_certificate_wherever_the_parent_connects(
    egress: Egress, partner: HttpsServer
) -> None:
    with pytest.raises(UnavailableError):
        ask(door(egress, partner, "evil.example"))
    assert partner.received == []


def test_another_key_than_the_pinned_one_is_refused(egress: Egress, partner: HttpsServer) -> None:
    with pytest.raises(DeniedError):
        ask(door(egress, partner, spki_sha256=("0" * 64,)))
    assert partner.received == []


def test_the_pinned_key_is_accepted(egress: Egress, partner: HttpsServer) -> None:
    assert ask(door(egress, partner, spki_sha256=(partner.spki_sha256,))).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254"])
def test_an_address_that_is_not_public_is_refused_before_the_parent_is_asked(
    egress: Egress, partner: HttpsServer, parent: Parent, host: str
) -> None:
    with pytest.raises(DeniedError):
        ask(door(egress, partner, host))
    assert parent.connections == 0


def test_what_the_parent_does_not_allow_is_denied(egress: Egress, partner: HttpsServer) -> None:
    with pytest.raises(DeniedError, match="parent"):
        ask(door(egress, partner, "other.example"))


def test_a_connection_that_ended_meanwhile_is_not_used_again(
    egress: Egress, partner: HttpsServer, parent: Parent
) -> None:
    partner.answer = lambda _: Answered(body=b"yes", headers={"Connection": "close"})
    found = door(egress, partner)
    assert [ask(found).body for _ in range(2)] == [b"yes"] * 2
    assert parent.connections == 2


def test_a_parent_that_hangs_costs_the_deadline_and_no_more(tmp_path: Path, partner: HttpsServer) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/hangs")
    with endpoint.listen() as listener:
        accepted: list[socket.socket] = []
        thread = threading.Thread(target=lambda: accepted.append(listener.accept()[0]))
        thread.start()
        egress = Egress(EgressSettings(outbound=endpoint), sleep=lambda _: None)
        with pytest.raises(CloisterError):
            ask(door(egress, partner), seconds=0.5)
        thread.join()
        accepted[0].close()
        egress.close()


def test_no_parent_is_an_outage(tmp_path: Path, partner: HttpsServer) -> None:
    outbound = Endpoint.parse(f"unix:{tmp_path}/none")
    egress = Egress(EgressSettings(outbound=outbound), sleep=lambda _: None)
    with pytest.raises(UnavailableError):
        ask(door(egress, partner))
    egress.close()
