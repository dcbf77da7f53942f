"""Streamed replies: whole and in order, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, LimitError, OpenError
from cloister.protocol import OpenedRequest, SealedRequest, StreamOpener, StreamSealer, stream
from cloister.secret import Secret

CEK = bytes(range(32))
TOKEN = "the.request.as.it.was"
VECTORS = json.loads(
    (Path(__file__).parents[3] / "vectors" / "protocol" / "stream.json").read_text(encoding="utf-8")
)


def sealer(cek: bytes = CEK, token: str = TOKEN) -> StreamSealer:
    return StreamSealer(
        OpenedRequest(
            plaintext=b"",
            kid="k",
            jti="j",
            expires=0,
            digest=hashlib.sha256(token.encode()).digest(),
            cek=Secret(cek),
        )
    )


def opener(cek: bytes = CEK, token: str = TOKEN) -> StreamOpener:
    return StreamOpener(SealedRequest(token=token, jti="j", expires=0, cek=Secret(cek)))


def frames_of(count: int) -> list[bytes]:
    sealing = sealer()
    return [sealing.seal({"result": {"n": n}}, last=n == count - 1) for n in range(count)]


def read(
    data: bytes, *, step: int | None = None, reading: StreamOpener | None = None
) -> list[Mapping[str, Any]]:
    reading, found = reading or opener(), []
    for start in range(0, len(data), step or max(len(data), 1)):
        found += reading.feed(data[start : start + (step or len(data))])
    reading.finish()
    return found


@pytest.mark.parametrize("step", [None, 1, 7, 300])
def test_frames_come_out_in_order_in_pieces_of_any_size(step: int | None) -> None:
    found = read(b"".join(frames_of(3)), step=step)
    assert [frame["result"]["n"] for frame in found] == [0, 1, 2]


def test_a_frame_is_given_as_soon_as_it_is_there() -> None:
    first, second = frames_of(2)
    reading = opener()
    assert len(list(reading.feed(first))) == 1
    assert list(reading.feed(second[:-1])) == []


FIRST, SECOND, THIRD = frames_of(3)
HEADER = FIRST[:40]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER,
        FIRST,
        FIRST + SECOND,
        FIRST + SECOND + THIRD[:-1],
        FIRST + THIRD,
        FIRST + THIRD + SECOND,
        FIRST[:40] + SECOND + FIRST[40:] + THIRD,
        FIRST + SECOND + SECOND + THIRD,
        FIRST + SECOND + THIRD + b"x",
        FIRST + SECOND + THIRD + THIRD,
        FIRST + b"\x01" + SECOND[1:],
        FIRST + SECOND + b"\x00" + THIRD[1:],
        FIRST + b"\x02" + SECOND[1:],
        b"clstrm\x00\x02" + (FIRST + SECOND + THIRD)[8:],
        b"".join(frames_of(3)[:1]) + SECOND + THIRD,
    ],
    ids=["nothing", "header-only", "one-of-three", "cut-off-at-a-frame", "cut-off-in-a-frame", "one-left-out",
         "swapped", "swapped-at-the-start", "repeated", "bytes-after-the-end", "frame-after-the-end",
         "ended-early", "end-unmarked", "another-flag", "another-magic", "frames-of-two-streams"],
)  # fmt: skip
def test_what_is_not_whole_does_not_open(data: bytes) -> None:
    with pytest.raises(OpenError):
        read(data)


@pytest.mark.parametrize("change", [{"cek": bytes(32)}, {"token": "another.request"}])
def test_a_stream_for_another_request_does_not_open(change: dict[str, Any]) -> None:
    with pytest.raises(OpenError):
        list(opener(**change).feed(FIRST))


@given(st.data())
def test_damaged_streams_do_not_open(data: st.DataObject) -> None:
    good = FIRST + SECOND + THIRD
    position = data.draw(st.integers(0, len(good) - 1))
    mutated = good[:position] + bytes([data.draw(st.integers(0, 255))]) + good[position + 1 :]
    if mutated != good:
        with pytest.raises(OpenError):
            read(mutated)


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    for prefix in (b"", HEADER):
        with pytest.raises(CloisterError):
            read(prefix + data)


def test_a_frame_that_announces_too_much_is_refused_before_it_comes() -> None:
    with pytest.raises(OpenError):
        list(opener().feed(HEADER + b"\x00" + (stream.MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_a_frame_that_is_too_large_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_FRAME_BYTES", 512)
    with pytest.raises(LimitError):
        sealer().seal({"result": {"x": "y" * 1000}})


def test_the_length_of_a_frame_is_a_bucket() -> None:
    assert len(sealer().seal({"result": {}})) == 40 + 5 + 256 + 16


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda vector: vector["name"])
def test_vectors_open_here_and_follow_from_the_specification_alone(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["stream"])
    found = StreamOpener(
        SealedRequest(token=vector["request"], jti="j", expires=0, cek=Secret(bytes.fromhex(vector["cek"])))
    )
    assert list(found.feed(data)) == vector["frames"]
    found.finish()
    # Without the product's code, from SPEC.md.
    header, rest = data[:40], data[40:]
    okm = HKDF(
        algorithm=SHA512(),
        length=39,
        salt=header[8:],
        info=b"cloister.stream.v1" + hashlib.sha256(vector["request"].encode()).digest(),
    ).derive(bytes.fromhex(vector["cek"]))
    for index, frame in enumerate(vector["frames"]):
        last, length = rest[:1], int.from_bytes(rest[1:5], "big")
        nonce = okm[32:] + index.to_bytes(4, "big") + last
        aad = hashlib.sha256(header).digest() + index.to_bytes(8, "big")
        assert json.loads(AESGCM(okm[:32]).decrypt(nonce, rest[5 : 5 + length], aad)) == frame
        assert last == (b"\x01" if index == len(vector["frames"]) - 1 else b"\x00")
        rest = rest[5 + length :]
    assert rest == b""


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"])
def test_vectors_that_must_not_open_do_not(vector: dict[str, Any]) -> None:
    with pytest.raises(OpenError):
        read(
            bytes.fromhex(vector["stream"]),
            reading=opener(bytes.fromhex(vector["cek"]), vector["request"]),
        )
