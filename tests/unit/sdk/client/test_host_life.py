"""What a client knows about its host: one flight, renewal ahead of the end, thaw, fork, rolling upgrade."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cloister import AsyncClient, Client, jose
from cloister.attestation import AppraisalPolicy
from cloister.errors import AppraisalError, CloisterError, UnavailableError
from cloister.identity import ApiKey
from cloister.protocol import open_request, request_kid, seal_reply
from cloister.protocol.session import Attest, Response
from cloister.transport import TransportError
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.keysets import OVERLAP_SECONDS, KeysetManager
from support.log_double import MemoryLog

DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Host:
    """One replica: real keysets and evidence, and an answer to every sealed request."""

    def __init__(self, clock: Clock, log: MemoryLog, image: str = "image-1") -> None:
        self.head = log.head().token
        self.keysets = KeysetManager(
            deployment_key=log.deployment_key,
            log_key=log.key,
            attester=SimulatedAttester(image, clock=clock),
            config={"root": {"environment": "simulated"}},
            holders=(holder(image),),
            clock=clock,
        )
        self.clock = clock
        self.challenges = 0
        self.effects: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.down = False

    def answer(self, path: str, body: bytes) -> Response:
        if self.down:
            raise TransportError("down")
        if path == "/v1/attestation":
            self.challenges += 1
            assert self.gate.wait(10)
            nonce = jose.b64url_decode(json.loads(body)["nonce"])
            return Response(status=200, body=json.dumps(self.keysets.document(nonce).to_json()).encode())
        token = body.decode()
        jwe, kid = request_kid(token)
        key = self.keysets.request_key(kid)
        if key is None:
            return Response(status=421, body=b"{}")
        opened = open_request(jwe, token=token, key=key, now=self.clock())
        self.effects.append(str(opened.body["idempotency_key"]))
        reply = seal_reply({"result": {}, "log": {"head": self.head, "consistency": ""}}, request=opened)
        return Response(status=200, body=reply.encode())

    def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        return self.answer(path, body)

    def close(self) -> None:
        pass


class AsyncHost:
    def __init__(self, host: Host) -> None:
        self.host = host

    async def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        await asyncio.sleep(0.01)
        return self.host.answer(path, body)

    async def aclose(self) -> None:
        pass


def holder(image: str) -> Mapping[str, Any]:
    return {"format": "simulated", "measurements": {"measurement": image}, "minimum": {}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cloister.client.time.time", clock)
    return clock


@pytest.fixture
def log() -> MemoryLog:
    """The log, and with it the keys, of one deployment."""
    log = MemoryLog()
    log.grow(bytes(32))
    return log


@pytest.fixture
def host(clock: Clock, log: MemoryLog) -> Host:
    return Host(clock, log)


def policy(*images: str) -> AppraisalPolicy:
    return AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "environment": "simulated",
            "tee": {"simulated": {"reference": [{"name": i, "measurement": i} for i in images]}},
        }
    )


def client_of(host: Any, *images: str) -> Client:
    identity = ApiKey("clk_x_y")
    return Client(tenant="t", policy=policy(*(images or ("image-1",))), identity=identity, transport=host)


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    with client_of(host) as client:
        yield client


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_thousand_calls_attest_once(host: Host, client: Client) -> None:
    for _ in range(20):
        client.call("x", {})
    assert host.challenges == 1


def test_threads_that_start_together_share_one_flight(host: Host, client: Client) -> None:
    host.gate.clear()
    threads = [threading.Thread(target=client.call, args=("x", {})) for _ in range(24)]
    for thread in threads:
        thread.start()
    wait_until(lambda: host.challenges == 1)
    host.gate.set()
    for thread in threads:
        thread.join()
    assert (host.challenges, len(host.effects)) == (1, 24)


def test_threads_that_wait_for_a_refusal_are_refused_by_the_same_flight(host: Host) -> None:
    host.gate.clear()
    refused: list[CloisterError] = []
    with client_of(host, "another-image") as client:

        def call() -> None:
            try:
                client.call("x", {})
            except AppraisalError as error:
                refused.append(error)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: host.challenges == 1)
        time.sleep(0.05)
        host.gate.set()
        for thread in threads:
            thread.join()
    assert len(refused) == 8
    assert host.challenges < 8
    assert host.effects == []


def test_tasks_that_start_together_share_one_flight(host: Host) -> None:
    async def run() -> None:
        identity = ApiKey("clk_x_y")
        async with AsyncClient(
            tenant="t", policy=policy("image-1"), identity=identity, transport=AsyncHost(host)
        ) as client:
            await asyncio.gather(*(client.call("x", {}) for _ in range(24)))

    asyncio.run(run())
    assert (host.challenges, len(host.effects)) == (1, 24)


def test_a_frozen_process_thaws_with_what_it_knows(host: Host, client: Client, clock: Clock) -> None:
    client.call("x", {})
    clock.now += DAY - 2 * OVERLAP_SECONDS
    client.call("x", {})
    assert host.challenges == 1


def test_a_process_frozen_past_the_end_attests_again(host: Host, client: Client, clock: Clock) -> None:
    client.call("x", {})
    clock.now += 3 * DAY
    client.call("x", {})
    assert host.challenges == 2


def test_the_host_is_appraised_anew_before_its_keyset_ends_while_calls_go_on(
    host: Host, client: Client, clock: Clock
) -> None:
    first = client.attest().keyset
    clock.now = first.expires - 60
    host.gate.clear()
    client.call("x", {})  # under the known keyset: nobody waits for the renewal
    client.call("x", {})
    wait_until(lambda: host.challenges == 2)
    host.gate.set()
    wait_until(lambda: client._flows.host.known(Attest()).keyset.digest != first.digest)
    client.call("x", {})
    assert host.challenges == 2


def test_asyncio_renews_in_the_background_too(host: Host, clock: Clock) -> None:
    async def run() -> None:
        identity = ApiKey("clk_x_y")
        async with AsyncClient(
            tenant="t", policy=policy("image-1"), identity=identity, transport=AsyncHost(host)
        ) as client:
            first = (await client.attest()).keyset
            clock.now = first.expires - 60
            await client.call("x", {})
            assert client._renewal is not None
            await client._renewal
            assert client._flows.host.known(Attest()).keyset.digest != first.digest

    asyncio.run(run())
    assert host.challenges == 2


def test_a_renewal_that_fails_costs_nobody_a_call_while_the_keyset_lives(
    host: Host, client: Client, clock: Clock
) -> None:
    first = client.attest().keyset
    clock.now = first.expires - 60
    tried: list[str] = []
    answer = host.answer

    def half_down(path: str, body: bytes) -> Response:
        if path == "/v1/attestation":
            tried.append(path)
            raise TransportError("down")
        return answer(path, body)

    host.answer = half_down  # type: ignore[method-assign]
    for _ in range(5):
        client.call("x", {})
    wait_until(lambda: tried)
    assert len(host.effects) == 5
    assert len(tried) == 1, "the renewal is tried again after a while, not on every call"


def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent(host: Host, client: Client) -> None:
    client.call("x", {})
    client._lock().acquire()
    child = os.fork()
    if child == 0:
        try:
            client.call("x", {})
            os._exit(0)
        except BaseException:  # noqa: BLE001 (the child has no other way to say so)
            os._exit(1)
    wait_until(lambda: os.waitpid(child, os.WNOHANG)[0] == child or None)
    client._lock().release()


def test_a_removed_holder_ends_the_epoch_and_clients_follow(host: Host, client: Client) -> None:
    host.keysets.set_holders((holder("image-1"), holder("image-1b")))
    both = client_of(host, "image-1", "image-1b")
    old = both.attest().keyset
    host.keysets.set_holders((holder("image-1"),))
    assert host.keysets.request_key(old.request_key(host.clock()).kid) is None  # type: ignore[union-attr]
    both.call("x", {})
    assert both.attest().keyset.holders == (holder("image-1"),)
    assert len(set(host.effects)) == len(host.effects)


def test_a_client_refuses_a_holder_it_does_not_accept(host: Host, client: Client) -> None:
    host.keysets.set_holders((holder("image-1"), holder("image-of-others")))
    with pytest.raises(AppraisalError, match="holders"):
        client.call("x", {})
    assert host.effects == []


# --- rolling upgrade: two accepted images of one deployment --------------------------------------


class Upgrade:
    """An address behind which a replica takes over from another."""

    def __init__(self, *replicas: Host) -> None:
        self.replicas = list(replicas)

    def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Response:
        return self.replicas[0].answer(path, body)

    def close(self) -> None:
        pass


@pytest.fixture
def replicas(clock: Clock, log: MemoryLog) -> tuple[Host, Host]:
    return Host(clock, log, "image-1"), Host(clock, log, "image-2")


def test_a_client_moves_to_the_new_image_during_a_rolling_upgrade(replicas: tuple[Host, Host]) -> None:
    old, new = replicas
    address = Upgrade(old, new)
    with client_of(address, "image-1", "image-2") as client:
        client.call("x", {}, idempotency_key="before")
        address.replicas.reverse()
        client.call("x", {}, idempotency_key="after")
    assert (old.effects, new.effects) == (["before"], ["after"])


def test_both_images_serve_side_by_side(replicas: tuple[Host, Host]) -> None:
    for replica in replicas:
        with client_of(replica, "image-1", "image-2") as client:
            client.call("x", {})
        assert len(replica.effects) == 1


def test_a_client_that_was_not_told_of_the_new_image_sends_it_nothing(replicas: tuple[Host, Host]) -> None:
    old, new = replicas
    address = Upgrade(old, new)
    with client_of(address, "image-1") as client:
        client.call("x", {})
        address.replicas.reverse()
        with pytest.raises(AppraisalError, match="measurement"):
            client.call("x", {})
    assert new.effects == []


def test_a_host_that_is_down_is_said_to_be(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.client.time.sleep", lambda _seconds: None)
    host.down = True
    with client_of(host) as client, pytest.raises(UnavailableError, match="cannot be reached"):
        client.call("x", {})
