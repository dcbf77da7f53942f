"""A witness cosigns what continues the log it saw, and clients that name it believe nothing else."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cloister import jose
from cloister.errors import ConfigurationError, LogError
from cloister.receipts import HeadKeeper
from cloister.receipts.merkle import EMPTY_ROOT
from cloister.receipts.witness import (
    COSIGNATURE,
    LOG,
    Cosigner,
    NoteKey,
    WitnessAheadError,
    add_request,
    checkpoint,
    sign_note,
)
from support.log_double import NOW, MemoryLog


def leaf(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


class Seen:
    def __init__(self) -> None:
        self.kept: dict[str, tuple[int, bytes]] = {}

    def load(self, origin):
        return self.kept.get(origin, (0, EMPTY_ROOT))

    def save(self, origin, size, root):
        self.kept[origin] = (size, root)


class Witness:
    """A witness of one log, and the log's way to it."""

    def __init__(self, log: MemoryLog, name: str = "witness.example") -> None:
        self.private, self.seen, self.log = Ed25519PrivateKey.generate(), Seen(), log
        self.key = NoteKey(
            name=name, algorithm=COSIGNATURE, public=self.private.public_key().public_bytes_raw()
        )
        jwk = log.key.to_jwk()
        self.log_private = Ed25519PrivateKey.from_private_bytes(jose.b64url_decode(jwk["d"]))
        self.log_key = NoteKey(
            name=f"cloister/{log.keyset.deployment}", algorithm=LOG, public=jose.b64url_decode(jwk["x"])
        )
        self.cosigner = Cosigner(self.key, self.private, [self.log_key], self.seen)

    def request(self, log, head, old, path=None):
        note = checkpoint(head)
        proof = log.consistency(old, head.size) if path is None else path
        return add_request(old, proof, note, sign_note(note, self.log_key, self.log_private, now=0))

    def cosign(self, log, head, old):
        return self.cosigner.add(self.request(log, head, old), now=NOW)


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    log.grow(*map(leaf, range(7)))
    return log


@pytest.fixture
def witness(log) -> Witness:
    return Witness(log)


def reply(log, seen, lines):
    part = log.reply(seen)
    part["log"]["cosignatures"] = lines
    return part


def test_a_growing_log_is_cosigned_and_believed(log, witness):
    keeper = HeadKeeper(witnesses=[witness.key])
    old = 0
    for number in range(5):
        head = log.grow(leaf(number))
        line = witness.cosign(log, head, old)
        base = keeper.kept(log.keyset)
        keeper.accept(reply(log, base.size if base else 0, [line]), keyset=log.keyset, base=base)
        old = head.size
    assert keeper.kept(log.keyset).size == old
    assert not any("witness" in line for line in keeper.not_checked)


def test_a_cosignature_is_that_of_c2sp(log, witness):
    head = log.head()
    dash, name, encoded = witness.cosign(log, head, 0).split(" ")
    raw = base64.b64decode(encoded)
    assert (dash, name) == ("—", "witness.example")
    public = witness.private.public_key()
    key_id = hashlib.sha256(b"witness.example\n\x04" + public.public_bytes_raw()).digest()[:4]
    assert (raw[:4], int.from_bytes(raw[4:12], "big")) == (key_id, NOW)
    root = base64.b64encode(head.root).decode()
    note = f"cloister/{log.keyset.deployment}\n{head.size}\n{root}\n"
    public.verify(raw[12:], f"cosignature/v1\ntime {NOW}\n{note}".encode())


@pytest.mark.parametrize("lines", [[], None, "x", [7], ["— witness.example AAAA"], ["no line"]], ids=str)
def test_a_head_that_the_named_witness_did_not_cosign_is_refused(log, witness, lines):
    with pytest.raises(LogError, match="has not signed"):
        HeadKeeper(witnesses=[witness.key]).accept(reply(log, 0, lines), keyset=log.keyset, base=None)


def test_a_cosignature_of_another_head_or_by_another_witness_is_refused(log, witness):
    keeper = HeadKeeper(witnesses=[witness.key])
    line = witness.cosign(log, log.head(5), 0)
    with pytest.raises(LogError):
        keeper.accept(reply(log, 0, [line]), keyset=log.keyset, base=None)
    other = Witness(log).cosign(log, log.head(), 0)
    with pytest.raises(LogError):
        keeper.accept(reply(log, 0, [other]), keyset=log.keyset, base=None)


def test_a_witness_says_what_it_has_seen(log, witness):
    witness.cosign(log, log.head(), 0)
    with pytest.raises(WitnessAheadError) as caught:
        witness.cosign(log, log.grow(leaf(9)), 5)
    assert caught.value.size == 7


def test_a_rollback_and_a_fork_are_not_cosigned(log, witness):
    fork = MemoryLog(like=log)
    witness.cosign(log, log.grow(leaf(8)), 0)
    with pytest.raises(LogError):
        witness.cosigner.add(witness.request(log, log.head(5), 8, path=[]), now=NOW)
    fork.grow(leaf(9), leaf(10))
    with pytest.raises(LogError):
        witness.cosign(fork, fork.head(), 8)
    assert witness.seen.kept[witness.log_key.name][0] == 8


def test_a_log_that_is_not_watched_or_not_signed_is_refused(log, witness):
    other = Witness(MemoryLog())
    other.log.grow(leaf(1))
    with pytest.raises(LogError, match="not watch"):
        witness.cosigner.add(other.request(other.log, other.log.head(), 0), now=NOW)
    request = witness.request(log, log.head(), 0)
    forged = add_request(0, [], checkpoint(log.head()), "— " + witness.log_key.name + " AAAAAAAA")
    with pytest.raises(LogError, match="has not signed"):
        witness.cosigner.add(forged, now=NOW)
    with pytest.raises(LogError):
        witness.cosigner.add(request.replace(b"\n7\n", b"\n6\n"), now=NOW)


def test_a_key_is_read_and_written_in_one_form(witness):
    text = str(witness.key)
    assert NoteKey.parse(text, algorithm=COSIGNATURE) == witness.key
    for wrong in ("", "a", "a+b+c", text[:-4], text.replace("witness", "other"), text + "=", text + "AAAA"):
        with pytest.raises(ConfigurationError):
            NoteKey.parse(wrong, algorithm=COSIGNATURE)
    with pytest.raises(ConfigurationError):
        NoteKey.parse(text, algorithm=LOG)


@given(st.binary(max_size=300) | st.builds(lambda text: text.encode(), st.text(max_size=200)))
def test_random_requests_are_refused_with_our_error(raw):
    log = MemoryLog()
    with pytest.raises(LogError):
        Witness(log).cosigner.add(raw, now=NOW)


@given(st.data())
def test_a_mutated_request_is_refused_with_our_error(data):
    log = MemoryLog()
    log.grow(*map(leaf, range(9)))
    witness = Witness(log)
    witness.cosign(log, log.head(5), 0)
    raw = witness.request(log, log.head(), 5)
    at = data.draw(st.integers(0, len(raw) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))
    with pytest.raises(LogError):
        witness.cosigner.add(raw[:at] + bytes([byte]) + raw[at + 1 :], now=NOW)


@pytest.mark.parametrize("part", ["proof", "signature"])
def test_base64_with_unused_bits_set_is_refused(part):
    log = MemoryLog()
    log.grow(*map(leaf, range(9)))
    witness = Witness(log)
    witness.cosign(log, log.head(5), 0)
    raw = witness.request(log, log.head(), 5)
    at = raw.index(b"=\n") - 1 if part == "proof" else raw.rindex(b"=") - 1
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = alphabet[alphabet.index(raw[at]) ^ 1]
    with pytest.raises(LogError):
        witness.cosigner.add(raw[:at] + bytes([changed]) + raw[at + 1 :], now=NOW)


@given(st.text(max_size=80))
def test_random_keys_are_refused_with_our_error(text):
    with pytest.raises(ConfigurationError):
        NoteKey.parse(text, algorithm=COSIGNATURE)


def test_a_request_that_is_too_large_is_refused(witness):
    with pytest.raises(LogError):
        witness.cosigner.add(b"old 0\n" + b"x" * 70_000, now=NOW)
