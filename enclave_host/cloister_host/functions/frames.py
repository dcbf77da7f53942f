"""What host and worker say to each other: length-capped, typed msgpack frames on a socketpair.

The worker end is in the hands of tenant code. The host reads frames of the types below and no others,
within a size, a number of values and a deadline, and whatever else arrives ends the worker.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any, Final, TypeVar

import msgspec

from cloister_host.functions.weight import UnfitError, check_weight

__all__ = [
    "MAX_DETAIL_CHARS",
    "MAX_FRAME_BYTES",
    "MAX_LOG_CHARS",
    "Answer",
    "Ask",
    "Call",
    "Channel",
    "ChannelError",
    "DeadlineError",
    "Failed",
    "Load",
    "Loaded",
    "Logged",
    "Progressed",
    "Refusal",
    "Returned",
]

MAX_FRAME_BYTES: Final = 32 << 20
MAX_LOG_CHARS: Final = 1 << 16
MAX_DETAIL_CHARS: Final = 2000
_LENGTH: Final = struct.Struct(">I")
_CHUNK: Final = 1 << 18
_TIMEVAL: Final = struct.Struct("@ll")

FrameT = TypeVar("FrameT")


class ChannelError(Exception):
    """The other end is gone, or does not keep to the frames."""


class DeadlineError(ChannelError):
    """The other end did not answer in time."""


class Load(msgspec.Struct, frozen=True, tag="load", array_like=True):
    """To the worker: import this code; with `check`, look at all of it first and say what it declares."""

    entrypoint: str
    settings: dict[str, str]
    check: bool = False
    logs: bool = False


class Call(msgspec.Struct, frozen=True, tag="call", array_like=True):
    """To the worker: run the function on these inputs, by parameter name; with `debug`, say why it fails.

    What comes of it bears the call's number. Numbers are drawn by chance, so that nothing can be written for
    a call before it has begun, and nothing that is left of one counts for the next.
    """

    number: int
    inputs: dict[str, Any]
    debug: bool = False


class Answer(msgspec.Struct, frozen=True, tag="answer", array_like=True):
    """To the worker: what an origin answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Refusal(msgspec.Struct, frozen=True, tag="refusal", array_like=True):
    """To the worker: why an origin was not asked, or gave no usable answer."""

    code: str
    message: str
    hint: str


class Loaded(msgspec.Struct, frozen=True, tag="loaded", array_like=True, forbid_unknown_fields=True):
    """From the worker; if checked, the manifest that the code declares and what a look at it has found."""

    manifest: bytes
    notes: list[str] = []


class Ask(msgspec.Struct, frozen=True, tag="ask", array_like=True, forbid_unknown_fields=True):
    """From the worker: ask a declared origin, named by parameter."""

    origin: str
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Returned(msgspec.Struct, frozen=True, tag="returned", array_like=True, forbid_unknown_fields=True):
    """From the worker: what the function returned, not yet checked against its output class."""

    call: int
    value: Any


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True, forbid_unknown_fields=True):
    """From the worker: the class name of what was raised; its text only where debugging was asked for.

    The call is 0 if loading failed.
    """

    call: int
    error: str
    detail: str = ""


class Logged(msgspec.Struct, frozen=True, tag="logged", array_like=True, forbid_unknown_fields=True):
    """From the worker, without an answer: something the function printed or logged."""

    text: str


class Progressed(msgspec.Struct, frozen=True, tag="progressed", array_like=True, forbid_unknown_fields=True):
    """From the worker, without an answer: how much of its work is done."""

    percent: int


ToWorker = Load | Call | Answer | Refusal
FromWorker = Loaded | Ask | Returned | Failed | Logged | Progressed


class Channel:
    """One end of the socketpair.

    Args:
        connection: A connected stream socket; the channel owns it.
        receives: Union of the frame types that may arrive.
    """

    def __init__(self, connection: socket.socket, receives: Any) -> None:
        self._connection = connection
        # A thread that logs must not write into another's frame.
        self._sending = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(receives)

    def send(self, frame: msgspec.Struct, *, deadline: float | None = None) -> None:
        """Send one frame; `deadline` is on the monotonic clock, None waits for ever.

        Raises:
            ChannelError: The frame is too large or the other end is gone.
            DeadlineError: The other end does not read.
        """
        self._send(self._encode(frame), deadline)

    def offer(self, frame: msgspec.Struct) -> memoryview:
        """Send what can wait in the socket; gives the rest, for `complete`.

        Raises:
            ChannelError: The frame is too large or the other end is gone.
        """
        encoded = self._encode(frame)
        try:
            return encoded[self._connection.send(encoded, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return encoded
        except OSError:
            raise ChannelError("the other end is gone") from None

    def complete(self, rest: memoryview, *, deadline: float | None = None) -> None:
        """Send the rest of a frame that was offered.

        Raises:
            ChannelError: The other end is gone.
            DeadlineError: The other end does not read.
        """
        self._send(rest, deadline)

    def receive(self, *, deadline: float | None = None) -> Any:
        """Receive one frame.

        Raises:
            ChannelError: The other end is gone, or what it sent is too large or no known frame.
            DeadlineError: Nothing complete came in time.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > MAX_FRAME_BYTES:
            raise ChannelError("the frame is too large")
        payload = self._read(length, deadline)
        try:
            check_weight(payload)
            return self._decoder.decode(payload)
        except (UnfitError, msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
            raise ChannelError("no known frame") from None

    def is_quiet(self) -> bool:
        """Whether the other end is there and has said nothing that was not read."""
        try:
            self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def hang_up(self) -> None:
        """End the conversation from another thread: whoever waits on it finds the other end gone."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end."""
        self._connection.close()

    def _encode(self, frame: msgspec.Struct) -> memoryview:
        encoded = self._encoder.encode(frame)
        if len(encoded) > MAX_FRAME_BYTES:
            raise ChannelError("the frame is too large")
        return memoryview(_LENGTH.pack(len(encoded)) + encoded)

    def _send(self, unsent: memoryview, deadline: float | None) -> None:
        try:
            with self._sending:
                while unsent:
                    self._limit(socket.SO_SNDTIMEO, deadline)
                    unsent = unsent[self._connection.send(unsent) :]
        except BlockingIOError:
            raise DeadlineError("the other end does not read") from None
        except OSError:
            raise ChannelError("the other end is gone") from None

    def _read(self, length: int, deadline: float | None) -> bytearray:
        # Grows as bytes arrive: announcing a large frame costs the sender, not the reader. The kernel
        # gathers a chunk before it wakes us: one byte at a time costs the sender, not the reader, too.
        received = bytearray()
        try:
            while len(received) < length:
                self._limit(socket.SO_RCVTIMEO, deadline)
                wanted = min(length - len(received), _CHUNK)
                chunk = self._connection.recv(wanted, socket.MSG_WAITALL)
                if not chunk:
                    raise ChannelError("the other end is gone")
                received += chunk
        except BlockingIOError:
            raise DeadlineError("no answer in time") from None
        except OSError:
            raise ChannelError("the other end is gone") from None
        return received

    def _limit(self, option: int, deadline: float | None) -> None:
        """Let the kernel end the next wait at the deadline."""
        if deadline is None:
            # Nothing is set on a socket that never had a deadline.
            return
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlineError("no answer in time")
        # Zero would mean no limit.
        microseconds = max(1, int(remaining * 1e6))
        self._connection.setsockopt(
            socket.SOL_SOCKET, option, _TIMEVAL.pack(*divmod(microseconds, 1_000_000))
        )
