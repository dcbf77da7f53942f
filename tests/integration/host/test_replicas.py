"""Hosts of one deployment open each other's requests, and give their keys to nobody else."""

from __future__ import annotations

import http.client
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloister.errors import AppraisalError, CloisterError, ConfigurationError, UnavailableError
from cloister.protocol.handover import Receiving
from cloister.protocol.handover_messages import Proof
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.replicas.doors import CLAIM, HELLO, RefusedError
from cloister_host.store.anchors import RolledBackError
from support.postgres import Cluster, cluster
from support.replicas import Deployment, Replica, Split
from support.waiting import until

KEYS = frozenset({"request-keys"})


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def deployment(postgresql: Cluster, tmp_path: Path) -> Deployment:
    return Deployment(tmp_path, postgresql.database())


def kind(image: str) -> dict[str, Any]:
    return {"name": image, "format": "simulated", "measurements": {"measurement": image}, "minimum": {}}


def audited(deployment: Deployment, replica: Replica, act: str) -> list[Any]:
    with deployment.client(replica.url) as operator:
        return [entry for entry in operator.call("audit.list", {})["entries"] if entry["act"] == act]


def test_a_request_that_one_host_was_attested_for_is_opened_by_any(deployment: Deployment) -> None:
    with deployment.replica() as first, deployment.replica() as second:
        for attested, sent in ((first, second), (second, first)):
            with deployment.client(Split(attested.url, sent.url)) as operator:
                operator.call("tenant.list", {})
                assert attested.host.keysets.keyset().token == operator.attest().keyset.token
        assert first.host.keysets.keyset().digest != second.host.keysets.keyset().digest
        assert audited(deployment, first, "handover.give")


def test_a_key_is_fetched_when_the_first_request_to_it_comes(deployment: Deployment) -> None:
    """Not a second later: between two rounds of a host anything may happen, also a new epoch of another."""
    with deployment.replica() as first, deployment.replica() as second:
        second.host.replicas.peers.close()
        first.host.keysets.rotate()
        first.host.replicas.peers.round()
        kid = first.host.keysets.keyset().request_key(first.host.services.clock())
        assert kid is not None
        # It may have been brought there meanwhile; then the host has lost it again.
        held = second.host.keysets._request_keys
        held[:] = [key for key in held if key.public.kid != kid.kid]
        assert not second.host.keysets.holds(kid.kid)
        with deployment.client(Split(first.url, second.url)) as operator:
            operator.call("tenant.list", {})
        assert second.host.keysets.holds(kid.kid)


def test_a_host_that_joins_takes_the_epoch_that_it_finds(deployment: Deployment) -> None:
    with deployment.replica() as first, deployment.replica() as second:
        now = first.host.services.clock()
        kids = {host.host.keysets.keyset().request_key(now).kid for host in (first, second)}  # type: ignore[union-attr]
        assert len(kids) == 1
        keys = [key for host in (first, second) for key in host.host.keysets.keyset().keys]
        assert len({key.kid for key in keys if key.role == "receipt"}) == 2


def test_a_machine_of_another_kind_is_given_nothing_and_does_not_start(deployment: Deployment) -> None:
    with deployment.replica() as first:
        with (
            pytest.raises(ConfigurationError, match="not among those that may be given keys"),
            deployment.replica("image-2"),
        ):
            pass
        assert audited(deployment, first, "handover.give") == []


def test_a_host_with_other_options_does_not_start_beside_it(deployment: Deployment) -> None:
    different = deployment.replica(egress_allow_private_addresses=True)
    with deployment.replica(), pytest.raises(ConfigurationError, match=r"config\.debug"), different:
        pass


def test_a_rolling_upgrade_adds_one_kind_of_machine_and_takes_the_other_away(deployment: Deployment) -> None:
    both = ("image-1", "image-2")
    with ExitStack() as stack:
        old = stack.enter_context(deployment.replica("image-1"))
        with deployment.client(old.url, *both) as operator:
            before = old.host.keysets.keyset()
            operator.call("holder.add", kind("image-2"))
        until(lambda: old.host.keysets.holders[1] == 1)
        # Whoever accepted the old list of holders did not accept that the new kind has these keys.
        given = {key.kid for key in old.host.keysets.to_give()}
        assert given.isdisjoint(key.kid for key in before.keys)
        new = stack.enter_context(deployment.replica("image-2"))
        with deployment.client(Split(old.url, new.url), *both) as operator:
            assert operator.call("holder.list", {})["version"] == 1
            operator.call("holder.remove", {"name": "first"})
        until(lambda: new.host.keysets.holders[1] == 2 and not old.host.keysets.to_give())
        with deployment.client(new.url, "image-2") as operator:
            assert [h["name"] for h in operator.call("holder.list", {})["holders"]] == ["image-2"]
            with pytest.raises(CloisterError):
                operator.call("holder.remove", {"name": "image-2"})
        # Hosts of the kind that was removed hold nothing, and say so.
        assert all(not old.host.keysets.holds(key.kid) for key in before.keys if key.role == "request")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{old.url}/readyz")
        with deployment.client(new.url, "image-1") as behind, pytest.raises(AppraisalError):
            behind.attest()
        with (
            pytest.raises(ConfigurationError, match="may not hold the deployment's keys"),
            deployment.replica("image-1"),
        ):
            pass


def test_a_client_that_does_not_accept_a_holder_does_not_accept_the_keys(deployment: Deployment) -> None:
    with deployment.replica() as host:
        with deployment.client(host.url, "image-1", "image-2") as operator:
            operator.call("holder.add", kind("image-2"))
        until(lambda: host.host.keysets.holders[1] == 1)
        with deployment.client(host.url, "image-1") as strict, pytest.raises(AppraisalError, match="holders"):
            strict.attest()


def test_only_who_was_granted_it_changes_the_holders(deployment: Deployment) -> None:
    with deployment.replica() as host, deployment.client(host.url) as operator:
        key = operator.call("tenant.create", {"tenant": "acme"})["api_key"]
        payloads = {"holder.add": kind("image-2"), "holder.remove": {"name": "first"}, "holder.list": {}}
        with deployment.client(host.url, tenant="acme", api_key=key) as admin:
            for action, payload in payloads.items():
                with pytest.raises(CloisterError):
                    admin.call(action, payload)
        assert operator.call("holder.list", {})["version"] == 0


def test_an_older_copy_of_the_store_is_refused_by_what_peers_have_seen(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    copy = tmp_path / "copy.db"
    with deployment.replica() as first:
        with sqlite3.connect(tmp_path / "state" / "cloister.db") as now, sqlite3.connect(copy) as then:
            now.backup(then)
        then.close()
        now.close()
        with deployment.client(first.url) as operator:
            operator.call("tenant.create", {"tenant": "acme"})
        with (
            pytest.raises(RolledBackError, match="older than other hosts"),
            deployment.replica(database=f"sqlite:///{copy}", peers=(first.url,)),
        ):
            pass
    # Nobody is left who knows better: without an anchor this is what a rollback looks like.
    with deployment.replica(database=f"sqlite:///{copy}", peers=(first.url,)):
        pass


class Stranger:
    """A program that speaks the hand-over by itself."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.attester = SimulatedAttester("image-1")
        address = urlsplit(replica.url)
        self.connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.connection.request("POST", path, body)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def prove(self, statement: bytes, nonce: bytes) -> Proof:
        return Proof(format="simulated", evidence=self.attester.evidence(statement=statement, nonce=nonce))


def test_a_claim_is_answered_once(deployment: Deployment) -> None:
    with deployment.replica() as host:
        stranger = Stranger(host)
        side = Receiving(host.host.replicas.peers._asking.terms(), wants=KEYS, nonce=os.urandom(32))
        status, challenge = stranger.post(HELLO, side.hello)
        assert status == 200
        statement, nonce = side.challenged(challenge, now=host.host.services.clock())
        claim = side.claim(stranger.prove(statement, nonce))
        status, grant = stranger.post(CLAIM, claim)
        assert status == 200
        assert side.accept(grant).keys
        status, refusal = stranger.post(CLAIM, claim)
        assert status == 400
        assert b"no hand-over with it is open" in refusal
        stranger.connection.close()


def test_what_is_no_message_is_refused(deployment: Deployment) -> None:
    with deployment.replica() as host:
        stranger = Stranger(host)
        for path in (HELLO, CLAIM):
            for body in (b"", b"{}", b"[]", b"\xff", b'{"v":1}', b'{"v":2}'):
                assert stranger.post(path, body)[0] == 400
        stranger.connection.close()


def test_a_hand_over_that_cannot_be_recorded_is_not_made(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deployment.replica() as host:
        asking = host.host.replicas.peers._asking

        def fails(*_: Any, **__: Any) -> None:
            raise UnavailableError("the log is away")

        monkeypatch.setattr(host.host.services.audit, "record", fails)
        with pytest.raises(UnavailableError):
            asking.ask([host.url], KEYS)


def test_whoever_answers_at_a_door_is_not_believed(tmp_path: Path) -> None:
    """The store names the doors, and its owner may name any."""
    ours, theirs = Deployment(tmp_path / "ours"), Deployment(tmp_path / "theirs")
    with ours.replica() as host, theirs.replica() as other:
        asking = host.host.replicas.peers._asking
        with pytest.raises(RefusedError, match="another deployment"):
            asking.ask([other.url], KEYS)
        with pytest.raises(UnavailableError):
            asking.ask([f"{host.url}/healthz", "unix:@nobody", "http://127.0.0.1:1"], KEYS)
