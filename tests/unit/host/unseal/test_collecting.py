"""Operators bring their shares to a host that waits, sealed to what it attests (PROTOCOL 4)."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloister import jose
from cloister._cli.share import app as share_command
from cloister.attestation import AppraisalPolicy
from cloister.attestation.fetching import Fetched
from cloister.errors import AppraisalError, CloisterError, ConfigurationError, EvidenceError
from cloister.protocol.share import ShareInvitation, open_share, seal_share
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.parts import build_attester
from cloister_host.attester.settings import AttesterSettings
from cloister_host.settings import HostSettings
from cloister_host.unseal.choose import open_unseal
from cloister_host.unseal.collecting import MAX_BODY_BYTES, ShareCollector
from cloister_host.unseal.settings import ShamirSettings
from cloister_host.unseal.shamir import ShamirUnseal
from support import evidence_builders as make
from support import require
from support.tee_doubles import nsm

PLACE = "deployment/1"
ROOT = b"a root key, sealed"


class Enclave:
    """A Nitro enclave whose host waits for shares, and those who talk to it."""

    def __init__(self, folder: Path) -> None:
        self.issuer = make.NitroIssuer()
        self.split = ShamirSettings(shares=3, threshold=2, folder=folder / "shares")
        self.wrapped = ShamirUnseal.create(self.split).wrap(ROOT, PLACE)
        self.port = 0
        self.told: Future[bytes]

    def share(self, number: int) -> bytes:
        return self.split.paths[number - 1].read_bytes()

    def policy(self, **change: Any) -> AppraisalPolicy:
        reference = {"name": "release", "pcr0": "01" * 48} | change
        return AppraisalPolicy.from_mapping(
            {
                "version": 1,
                "environment": "test",
                "trust_anchors": [self.issuer.root.public_bytes(Encoding.PEM).decode()],
                "tee": {"nitro": {"reference": [reference]}},
            }
        )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The host waits, in a thread of its own; `told` is what it unwrapped in the end."""
        opened: Future[int] = Future()
        collector = ShareCollector(
            address="127.0.0.1:0",
            attester=NitroAttester(nsm(self.issuer)),
            endorsements=Fetched,
            opened=opened.set_result,
        )
        unseal = ShamirUnseal(ShamirSettings(collect="127.0.0.1:0"), collector)
        with ThreadPoolExecutor(1) as pool:
            self.told = pool.submit(unseal.unwrap, self.wrapped, PLACE)
            self.port = opened.result(60)
            try:
                yield
            finally:
                for number in (1, 2):  # whatever a test did, it ends; perhaps before the last of these
                    with suppress(OSError, http.client.HTTPException, AssertionError):
                        self.submit(self.seal(self.share(number)))

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def invite(self, nonce: bytes) -> bytes:
        body = json.dumps({"nonce": jose.b64url_encode(nonce)}).encode()
        status, answer = self.post("/v1/shares/challenge", body)
        assert status == 200, answer
        return answer

    def seal(self, share: bytes, policy: AppraisalPolicy | None = None) -> str:
        nonce = os.urandom(32)
        invitation = ShareInvitation.from_bytes(self.invite(nonce))
        return seal_share(invitation, policy or self.policy(), share, nonce=nonce, at=make.AT)

    def submit(self, sealed: str) -> tuple[int, Any]:
        status, answer = self.post("/v1/shares", sealed.encode())
        return status, json.loads(answer)


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    require.module("shamir_mnemonic", install="pip install shamir-mnemonic")
    return Enclave(tmp_path)


def test_enough_shares_start_the_host(enclave: Enclave) -> None:
    with enclave.waiting():
        assert enclave.submit(enclave.seal(enclave.share(3))) == (200, {"have": 1, "need": 2})
        assert not enclave.told.done()
        assert enclave.submit(enclave.seal(enclave.share(1))) == (200, {"have": 2, "need": 2})
        assert enclave.told.result(60) == ROOT


def test_the_same_share_twice_is_one(enclave: Enclave) -> None:
    with enclave.waiting():
        for _ in range(2):
            assert enclave.submit(enclave.seal(enclave.share(3))) == (200, {"have": 1, "need": 2})
        assert not enclave.told.done()


def test_a_share_never_crosses_in_the_clear(enclave: Enclave) -> None:
    with enclave.waiting():
        sealed = enclave.seal(enclave.share(1))
        words = enclave.share(1).splitlines()[-1]
        assert words not in sealed.encode()
        assert words[:20] not in jose.b64url_decode(sealed.rsplit(".", 2)[1])


def test_another_image_gets_no_share(enclave: Enclave) -> None:
    with enclave.waiting(), pytest.raises(AppraisalError, match="pcr0"):
        enclave.seal(enclave.share(1), enclave.policy(pcr0="09" * 48))


def test_evidence_under_another_root_gets_no_share(enclave: Enclave, tmp_path: Path) -> None:
    other = make.NitroIssuer()
    policy = replace(enclave.policy(), trust_anchors=(other.root.public_bytes(Encoding.PEM),))
    with enclave.waiting(), pytest.raises(EvidenceError):
        enclave.seal(enclave.share(1), policy)


def test_a_key_that_the_evidence_does_not_speak_of_gets_no_share(enclave: Enclave) -> None:
    """Whoever is in between puts his own key beside genuine evidence."""
    nonce = os.urandom(32)
    with enclave.waiting():
        invitation = ShareInvitation.from_bytes(enclave.invite(nonce))
        for own in (jose.generate_key("HPKE-10-KE"), jose.generate_key("HPKE-7-KE")):
            forged = replace(invitation, jwk=jose.public_jwk(own))
            with pytest.raises(EvidenceError, match="another"):
                seal_share(forged, enclave.policy(), b"share", nonce=nonce, at=make.AT)


def test_an_answer_to_another_challenge_gets_no_share(enclave: Enclave) -> None:
    with enclave.waiting():
        invitation = ShareInvitation.from_bytes(enclave.invite(os.urandom(32)))
        with pytest.raises(EvidenceError, match="another challenge"):
            seal_share(invitation, enclave.policy(), b"share", nonce=os.urandom(32), at=make.AT)


def test_evidence_for_clients_does_not_collect_shares(enclave: Enclave) -> None:
    """The statement says what it is for."""
    nonce, key = os.urandom(32), jose.public_jwk(jose.generate_key("HPKE-10-KE"))
    import rfc8785

    members = {"key": jose.thumbprint(key), "nonce": jose.b64url_encode(nonce), "purpose": "cloister.self.v1"}
    attester = NitroAttester(nsm(enclave.issuer))
    with enclave.waiting():
        genuine = ShareInvitation.from_bytes(enclave.invite(nonce))
        evidence = attester.evidence(statement=rfc8785.dumps(members), nonce=nonce)
        forged = ShareInvitation(jwk=key, document=replace(genuine.document, evidence=evidence))
        with pytest.raises(EvidenceError):
            seal_share(forged, enclave.policy(), b"share", nonce=nonce, at=make.AT)


def test_a_share_of_another_root_key_is_dropped(enclave: Enclave, tmp_path: Path) -> None:
    other = replace(enclave.split, folder=tmp_path / "other")
    ShamirUnseal.create(other).wrap(ROOT, PLACE)
    with enclave.waiting():
        for share in (other.paths[0].read_bytes(), b"", b"word", bytes(100), b"\xff" * 4000):
            status, answer = enclave.submit(enclave.seal(share))
            assert (status, answer) == (400, {"error": "it is no share of this root key"})
        assert enclave.submit(enclave.seal(enclave.share(2))) == (200, {"have": 1, "need": 2})


def test_what_was_sealed_to_another_start_does_not_open(enclave: Enclave) -> None:
    with enclave.waiting():
        kept = enclave.seal(enclave.share(1))
    with enclave.waiting():
        status, answer = enclave.submit(kept)
        assert (status, answer) == (400, {"error": "not sealed to this start of this host"})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/", b"{}", 404),
        ("/v1/sealed", b"{}", 404),
        ("/v1/shares/challenge", b"", 400),
        ("/v1/shares/challenge", b"{}", 400),
        ("/v1/shares/challenge", b'{"nonce": 1}', 400),
        ("/v1/shares/challenge", b'{"nonce": ""}', 400),
        ("/v1/shares/challenge", b'{"nonce": "' + b"A" * 400 + b'"}', 400),
        ("/v1/shares/challenge", b"[" * 10_000, 400),
        ("/v1/shares", b"", 400),
        ("/v1/shares", b"\xff", 400),
        ("/v1/shares", b"a.b.c.d.e", 400),
        ("/v1/shares", bytes(MAX_BODY_BYTES + 1), 413),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    enclave: Enclave, path: str, body: bytes, status: int
) -> None:
    with enclave.waiting():
        assert enclave.post(path, body)[0] == status
        assert enclave.submit(enclave.seal(enclave.share(1))) == (200, {"have": 1, "need": 2})


def test_a_connection_that_says_nothing_holds_nobody_up(enclave: Enclave) -> None:
    with enclave.waiting(), socket.create_connection(("127.0.0.1", enclave.port), timeout=60):
        assert enclave.submit(enclave.seal(enclave.share(1))) == (200, {"have": 1, "need": 2})


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_named(enclave: Enclave, address: str) -> None:
    collector = ShareCollector(
        address=address, attester=NitroAttester(nsm(enclave.issuer)), endorsements=Fetched
    )
    with pytest.raises(ConfigurationError, match=r"address|ADDRESS"):
        collector.collect(lambda _share: None, 2)


@given(body=st.binary(max_size=300) | st.just(b"[" * 20_000) | st.just(b'{"jwk": {}, "document": {}}'))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_no_invitation(body: bytes) -> None:
    with pytest.raises(EvidenceError):
        ShareInvitation.from_bytes(body)


@given(sealed=st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_random_text_is_no_share(sealed: str) -> None:
    with pytest.raises(CloisterError):
        open_share(sealed, KEY)


KEY = jose.generate_key("HPKE-10-KE")


def test_the_command_appraises_and_submits(
    enclave: Enclave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr(make, "AT", now)
    monkeypatch.setattr(make, "LIFE", (now - timedelta(hours=1), now + timedelta(hours=2)))
    enclave.issuer = make.NitroIssuer()
    text = json.dumps(
        {
            "version": 1,
            "environment": "test",
            "trust_anchors": [enclave.issuer.root.public_bytes(Encoding.PEM).decode()],
            "tee": {"nitro": {"reference": [{"name": "release", "pcr0": "01" * 48}]}},
        }
    )
    (tmp_path / "policy.json").write_text(text)
    (tmp_path / "other.json").write_text(text.replace("01" * 48, "09" * 48))
    with enclave.waiting():
        monkeypatch.setenv("CLOISTER_URL", f"http://127.0.0.1:{enclave.port}")
        monkeypatch.setenv("CLOISTER_POLICY", str(tmp_path / "other.json"))
        refused = CliRunner().invoke(share_command, ["submit", str(enclave.split.paths[0])])
        assert isinstance(refused.exception, AppraisalError)
        monkeypatch.setenv("CLOISTER_POLICY", str(tmp_path / "policy.json"))
        for number, said in ((1, "1 of 2 shares; it waits for more"), (3, "2 of 2 shares; the host starts")):
            done = CliRunner().invoke(share_command, ["submit", str(enclave.split.paths[number - 1])])
            assert done.exit_code == 0, done.exception
            assert done.stdout.strip().endswith(said)
        assert enclave.told.result(60) == ROOT


def test_the_settings_of_a_host_make_it_wait(enclave: Enclave, tmp_path: Path) -> None:
    from cloister_host._cli._unseal import shamir_settings

    anchor = tmp_path / "nitro.pem"
    anchor.write_bytes(enclave.issuer.root.public_bytes(Encoding.PEM))
    parts = build_attester(
        AttesterSettings(trust_anchors=(anchor,)),
        state=tmp_path,
        clock=make.AT.timestamp,
        attester=NitroAttester(nsm(enclave.issuer)),
    )
    chosen = HostSettings(
        state=tmp_path, unseal="shamir", shamir=shamir_settings(None, ["collect-shares=127.0.0.1:x"])
    )
    with pytest.raises(ConfigurationError, match="collect-shares="):
        open_unseal(chosen, parts).unwrap(enclave.wrapped, PLACE)
