"""The host's end of the channel against whatever tenant code sends."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_host.functions.frames import (
    MAX_FRAME_BYTES,
    Call,
    Channel,
    ChannelError,
    DeadlineError,
    FromWorker,
    Returned,
)


def hear(sent: bytes) -> object:
    """What the host makes of these bytes, after which the worker hangs up."""
    ours, theirs = socket.socketpair()
    speaking = threading.Thread(target=_say, args=(theirs, sent))
    speaking.start()
    channel = Channel(ours, FromWorker)
    try:
        return channel.receive(deadline=time.monotonic() + 5)
    finally:
        channel.close()
        speaking.join()


def _say(end: socket.socket, sent: bytes) -> None:
    with end, contextlib.suppress(OSError):
        end.sendall(sent)


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def test_a_frame_arrives() -> None:
    assert hear(framed(msgspec.msgpack.encode(Returned(7, True)))) == Returned(7, True)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00\x00",
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        struct.pack(">I", 10) + b"short",
        framed(b""),
        framed(msgspec.msgpack.encode(["returned", 7])),
        framed(msgspec.msgpack.encode(["returned", 1, 2, 3])),
        framed(msgspec.msgpack.encode(["ask", "partner", "GET", 7, {}, {}, b""])),
        framed(msgspec.msgpack.encode(["unknown", 1])),
        framed(msgspec.msgpack.encode(Call(7, {}))),
        framed(b"\x92\xa8returned" + b"\x91" * 100_000),
        framed(b"\x92\xa8returned\xdd\x00\x80\x00\x00" + b"\x90" * (1 << 23)),
    ],
    ids=[
        "nothing",
        "half a length",
        "too large",
        "cut off",
        "empty",
        "too few members",
        "too many members",
        "wrong type",
        "unknown frame",
        "the host's own frame",
        "nested too deeply",
        "eight million empty lists",
    ],
)
def test_anything_but_a_whole_known_frame_is_refused(sent: bytes) -> None:
    with pytest.raises(ChannelError):
        hear(sent)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_a_frame(sent: bytes) -> None:
    try:
        heard = hear(framed(sent))
    except ChannelError:
        return
    assert isinstance(heard, FromWorker)


def test_silence_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, FromWorker)
    with theirs, pytest.raises(DeadlineError):
        channel.receive(deadline=time.monotonic() + 0.05)
    channel.close()


def test_a_frame_too_large_to_send_is_not_begun() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, FromWorker)
    with pytest.raises(ChannelError):
        channel.send(Call(7, {"value": bytes(MAX_FRAME_BYTES)}))
    channel.close()
    with theirs:
        assert theirs.recv(1) == b""


def test_a_worker_that_does_not_read_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, FromWorker)
    with theirs, pytest.raises(DeadlineError):
        channel.send(Call(7, {"value": bytes(8 << 20)}), deadline=time.monotonic() + 0.05)
    channel.close()


def test_a_frame_that_trickles_in_does_not_keep_the_reader_busy() -> None:
    ours, theirs = socket.socketpair()
    calls = []

    class Counted(socket.socket):
        def recv(self, *arguments: int) -> bytes:
            calls.append(arguments)
            return super().recv(*arguments)

    channel = Channel(Counted(fileno=ours.detach()), FromWorker)
    payload = framed(msgspec.msgpack.encode(Returned(7, "x" * 5000)))
    speaking = threading.Thread(
        target=lambda: [theirs.send(payload[at : at + 1]) for at in range(len(payload))]
    )
    speaking.start()
    assert channel.receive(deadline=time.monotonic() + 30) == Returned(7, "x" * 5000)
    # The kernel gathers: one wait for the length, one for the frame.
    assert len(calls) == 2
    speaking.join()
    theirs.close()
    channel.close()


def test_what_was_said_before_it_was_asked_for_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, FromWorker)
    assert channel.is_quiet()
    theirs.sendall(framed(msgspec.msgpack.encode(Returned(7, True))))
    assert not channel.is_quiet()
    assert channel.receive(deadline=time.monotonic() + 5) == Returned(7, True)
    assert channel.is_quiet()
    theirs.close()
    assert not channel.is_quiet()
    channel.close()
