"""Sealed objects: what opens, what does not, and how much of it is in memory."""

from __future__ import annotations

import dataclasses
import io
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.envelope import DataKey, Dek, drop_data_keys
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose import generate_key, wrap_key
from cloister.jose.keys import Key
from cloister.objects import (
    MIN_FRAME_BYTES,
    FileSource,
    ObjectKey,
    ObjectReader,
    ObjectSealer,
    is_object,
    open_stream,
    read_header,
    recover_object_key,
    seal_stream,
)
from cloister.objects import frames as frames_module
from cloister.secret import Secret

F = MIN_FRAME_BYTES
STRIDE = F + 16
SIZES = (0, 1, F - 1, F, F + 1, 2 * F, 3 * F + 7)


def opened(raw, recover, **options):
    sink = io.BytesIO()
    open_stream(io.BytesIO(raw), sink, recover, **options)
    return sink.getvalue()


def reader(raw, recover, **options):
    return ObjectReader(FileSource(io.BytesIO(raw)), recover, **options)


def body_of(raw):
    return len(read_header(io.BytesIO(raw)))


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_opens(sealing, size):
    content = os.urandom(size)
    raw = sealing.seal(content)
    assert opened(raw, sealing.recover) == content
    with reader(raw, sealing.recover) as plain:
        assert plain.size == size
        assert plain.readall() == content


@pytest.mark.parametrize("size", SIZES)
def test_every_shorter_or_longer_object_is_refused(sealing, size):
    raw = sealing.seal(os.urandom(size))
    start = body_of(raw)
    cuts = {start, start + 1, len(raw) - 1, *range(start, len(raw), STRIDE)} - {len(raw)}
    for changed in [raw[:cut] for cut in sorted(cuts)] + [raw + b"\x00", raw + raw[-16:]]:
        with pytest.raises(OpenError):
            opened(changed, sealing.recover)
        with pytest.raises(OpenError):
            reader(changed, sealing.recover)


def test_frames_cannot_be_reordered_dropped_repeated_or_taken_from_another_object(sealing):
    content = os.urandom(3 * F + 5)
    raw, other = sealing.seal(content), sealing.seal(content)
    start = body_of(raw)
    frames = [raw[start + i * STRIDE : start + (i + 1) * STRIDE] for i in range(4)]
    foreign = other[body_of(other) :][:STRIDE]
    for arrangement in (
        [frames[1], frames[0], frames[2], frames[3]],
        [frames[0], frames[2], frames[3]],
        [frames[0], frames[0], frames[1], frames[2], frames[3]],
        [foreign, *frames[1:]],
        [*frames[:2], frames[3]],
    ):
        changed = raw[:start] + b"".join(arrangement)
        with pytest.raises(OpenError):
            opened(changed, sealing.recover)
        with pytest.raises(OpenError):
            reader(changed, sealing.recover).readall()


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10**9), mask=st.integers(1, 255))
def test_a_changed_byte_is_found(position, mask):
    raw, key = sample()
    changed = bytearray(raw)
    changed[position % len(raw)] ^= mask
    with pytest.raises(OpenError):
        opened(bytes(changed), lambda _header: key.cek)
    with pytest.raises(OpenError):
        reader(bytes(changed), lambda _header: key.cek).readall()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"clobj\x00\x01\n" + tail))
def test_random_bytes_raise_our_error_only(raw):
    with pytest.raises(OpenError):
        opened(raw, lambda _header: Secret(bytes(32)))
    with pytest.raises(OpenError):
        reader(raw, lambda _header: Secret(bytes(32)))


def test_a_header_says_it_in_one_way_only(sealing):
    raw = sealing.seal(b"x")
    header = read_header(io.BytesIO(raw))
    text = header.raw[12:]
    for changed in (
        text.replace(b'"enc":"A256GCM"', b'"enc": "A256GCM"'),
        text.replace(b'{"typ"', b'{"zip":"DEF","typ"'),
        text.replace(b'"enc":"A256GCM"', b'"enc":"A128GCM"'),
        text.replace(b'"frame_bytes":4096', b'"frame_bytes":4096.0'),
        text.replace(b'"frame_bytes":4096', b'"frame_bytes":1'),
        text.replace(b'"frame_bytes":4096', b'"frame_bytes":true'),
        text.replace(b'"kid":"documents.1"', b'"kid":"documents.1","kid":"documents.1"'),
        text.replace(b'"alg":"A256KW"', b'"alg":"HPKE-10-KE"'),
        text.replace(b"cloister-object+jwe", b"cloister-value+jwe"),
    ):
        assert changed != text
        with pytest.raises(OpenError):
            read_header(
                io.BytesIO(raw[:8] + len(changed).to_bytes(4, "big") + changed + raw[12 + len(text) :])
            )
    with pytest.raises(OpenError):
        read_header(io.BytesIO(raw[:8] + (2**31).to_bytes(4, "big") + text))


def test_another_key_is_refused_before_anything_is_decrypted(sealing, monkeypatch):
    raw = sealing.seal(b"content")
    monkeypatch.setattr(frames_module, "AESGCM", None)
    with pytest.raises(OpenError):
        opened(raw, lambda _header: Secret(os.urandom(32)))


@pytest.mark.parametrize(
    ("sealed_with", "opened_with"),
    [({"a": "1"}, {"a": "2"}), ({"a": "1"}, None), (None, {"a": "1"}), (None, {}), ({}, None)],
)
def test_another_context_does_not_open(sealing, sealed_with, opened_with):
    raw = sealing.seal(b"content", context=sealed_with)
    assert opened(raw, sealing.recover, context=sealed_with) == b"content"
    with pytest.raises(OpenError):
        opened(raw, sealing.recover, context=opened_with)
    with pytest.raises(OpenError):
        reader(raw, sealing.recover, context=opened_with)


def test_objects_under_one_data_key_have_keys_of_their_own(sealing):
    first, second = sealing.seal(b"content"), sealing.seal(b"content")
    assert first[body_of(first) :] != second[body_of(second) :]


def test_a_data_key_of_the_host_seals_objects_and_counts_them():
    key = generate_key("A256KW", kid="documents.1")
    cek = Secret(os.urandom(32))
    data_key = DataKey(kid="documents.1", dek=cek, encrypted_key=wrap_key(cek, key), max_messages=1)
    dek = Dek(data_key, now=0.0)
    sink = io.BytesIO()
    seal_stream(io.BytesIO(b"content"), sink, ObjectKey.of_dek(dek))
    assert opened(sink.getvalue(), lambda header: recover_object_key(header, key)) == b"content"
    with pytest.raises(LimitError):
        ObjectKey.of_dek(dek)


def test_a_data_key_of_before_a_snapshot_seals_no_object():
    key = generate_key("A256KW", kid="documents.1")
    cek = Secret(os.urandom(32))
    dek = Dek(DataKey(kid="documents.1", dek=cek, encrypted_key=wrap_key(cek, key)), now=0.0)
    drop_data_keys()
    with pytest.raises(LimitError):
        ObjectKey.of_dek(dek)


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "HPKE-7-KE"])
def test_offline_an_object_is_sealed_to_a_public_half(alg):
    private = generate_key(alg, kid="documents.1")
    sink = io.BytesIO()
    seal_stream(io.BytesIO(b"content"), sink, ObjectKey.to_public(private.public(), kid="documents.1"))
    assert opened(sink.getvalue(), lambda header: recover_object_key(header, private)) == b"content"
    with pytest.raises(OpenError):
        recover_object_key(read_header(io.BytesIO(sink.getvalue())), generate_key(alg, kid="documents.1"))
    with pytest.raises(OpenError):
        recover_object_key(
            read_header(io.BytesIO(sink.getvalue())), generate_key("A256KW", kid="documents.1")
        )


def test_a_symmetric_key_is_no_public_half():
    key: Key = generate_key("A256KW", kid="documents.1")
    with pytest.raises(ConfigurationError):
        ObjectKey.to_public(key, kid="documents.1")


@pytest.mark.parametrize(
    "options", [{"frame_bytes": 1}, {"frame_bytes": 2**30}, {"cty": ""}, {"cty": "a\nb"}, {"cty": "é"}]
)
def test_an_object_that_cannot_be_is_refused(sealing, options):
    with pytest.raises(ConfigurationError):
        ObjectSealer(sealing.key, **options)


def test_an_object_has_a_greatest_length(sealing, monkeypatch):
    monkeypatch.setattr(frames_module, "MAX_FRAMES", 2)
    assert sealing.seal(bytes(2 * F))
    with pytest.raises(LimitError):
        sealing.seal(bytes(2 * F + 1))


def test_any_part_is_read_without_the_rest(sealing):
    content = os.urandom(50 * F + 100)
    source = Counting(sealing.seal(content))
    with ObjectReader(source, sealing.recover) as plain:
        source.read = 0
        plain.seek(10 * F - 3)
        assert plain.read(2) == content[10 * F - 3 : 10 * F - 1]
        assert source.read == STRIDE
        plain.seek(-50, io.SEEK_END)
        assert plain.read() == content[-50:]
        plain.seek(0)
        assert io.BufferedReader(plain).read(3 * F) == content[: 3 * F]


def test_a_reader_keeps_nothing_of_a_frame_that_did_not_open(sealing):
    content = os.urandom(3 * F)
    source = Counting(sealing.seal(content))
    with ObjectReader(source, sealing.recover) as plain:
        source.raw[len(plain.header) + F // 2] ^= 1
        for _ in range(2):
            plain.seek(0)
            with pytest.raises(OpenError):
                plain.read(10)
        plain.seek(F)
        assert plain.read(10) == content[F : F + 10]


def test_memory_does_not_grow_with_the_object(sealing):
    class Zeros:
        left = 64 * 1024 * 1024

        def read(self, size):
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    class Nowhere:
        def write(self, data):
            pass

    tracemalloc.start()
    try:
        seal_stream(Zeros(), Nowhere(), sealing.key)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_a_source_that_gives_little_at_a_time_makes_the_same_frames(sealing):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 1000))

    content = os.urandom(2 * F + 9)
    sink = io.BytesIO()
    seal_stream(Slow(content), sink, sealing.key, frame_bytes=F)
    with Slow(sink.getvalue()) as slow:
        back = io.BytesIO()
        open_stream(slow, back, sealing.recover)
    assert back.getvalue() == content


def test_progress_tells_bytes_of_plaintext(sealing):
    told: list[int] = []
    raw = sealing.seal(bytes(2 * F + 1), progress=told.append)
    open_stream(io.BytesIO(raw), io.BytesIO(), sealing.recover, progress=told.append)
    assert told == [F, 2 * F, 2 * F + 1] * 2


def test_nothing_secret_is_printed(sealing):
    header = read_header(io.BytesIO(sealing.seal(b"content", cty="text/csv")))
    assert sealing.key.cek.reveal().hex() not in repr(sealing.key)
    assert header.cty == "text/csv"
    assert dataclasses.replace(header).raw == header.raw
    assert is_object(header.raw)
    assert not is_object(b"clobj")


class Counting:
    """A range source that counts what is read from it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = bytearray(raw)
        self.read = 0

    @property
    def size(self) -> int:
        return len(self.raw)

    def read_at(self, offset: int, length: int) -> bytes:
        self.read += length
        return bytes(self.raw[offset : offset + length])


_SAMPLE: list[tuple[bytes, ObjectKey]] = []


def sample() -> tuple[bytes, ObjectKey]:
    """One object of two frames for the property tests, made once."""
    if not _SAMPLE:
        key = ObjectKey(
            alg="A256KW", kid="documents.1", encrypted_key=os.urandom(40), cek=Secret(os.urandom(32))
        )
        sink = io.BytesIO()
        seal_stream(
            io.BytesIO(os.urandom(F + 50)), sink, key, frame_bytes=F, context={"a": "b"}, cty="text/csv"
        )
        _SAMPLE.append((sink.getvalue(), key))
    return _SAMPLE[0]
