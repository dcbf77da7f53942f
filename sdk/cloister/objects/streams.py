"""Seal and open from end to end, one frame in memory."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

from cloister.envelope.context import ContextMac
from cloister.errors import OpenError
from cloister.objects.frames import FRAME_BYTES, TAG_BYTES, FrameCipher
from cloister.objects.header import ObjectHeader, Readable, read_exactly, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.objects.keys import ObjectKey
    from cloister.secret import Secret

__all__ = ["ObjectSealer", "Progress", "Recover", "Writable", "cipher_for", "open_stream", "seal_stream"]

Progress = Callable[[int], object]
"""Told after each frame how many bytes of plaintext are done."""

Recover = Callable[[ObjectHeader], "Secret"]
"""Gives the content-encryption key of the object with this header."""


class Writable(Protocol):
    """What is written to: any file opened for bytes."""

    def write(self, data: memoryview, /) -> object:
        """Write bytes, which the caller will overwrite afterwards."""


class ObjectSealer:
    """One object being sealed: its header, then its frames, in order and once.

    Args:
        key: The content-encryption key.
        frame_bytes: Plaintext bytes of a frame, 4 KiB to 16 MiB.
        cty: The media type; everybody can read it.
        context: What the object belongs to; it opens only where the same is given.
    """

    def __init__(
        self,
        key: ObjectKey,
        *,
        frame_bytes: int = FRAME_BYTES,
        cty: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        self.header = key.new_header(frame_bytes=frame_bytes, cty=cty, context=context)
        self._cipher = FrameCipher(self.header, key.cek.reveal())

    @classmethod
    def again(cls, header: ObjectHeader, cek: Secret, *, context: Mapping[str, str] | None) -> Self:
        """Seal an object that was begun before a second time, from the same source.

        The caller must not let out a frame that differs from the first time's: see `uploads`.

        Raises:
            OpenError: The header is another key's, or bound to another context.
        """
        self = cls.__new__(cls)
        self.header = header
        self._cipher = cipher_for(header, cek, context)
        return self

    def frames(self, source: Readable) -> Iterator[memoryview]:
        """Seal a source; each frame is valid until the next one is asked for."""
        size = self.header.frame_bytes
        index, part = 0, read_exactly(source, size)
        while True:
            # Only what follows tells whether a full frame is the last.
            following = read_exactly(source, size) if len(part) == size else b""
            yield self._cipher.seal(index, part, last=not following)
            if not following:
                return
            index, part = index + 1, following


def seal_stream(
    source: Readable,
    sink: Writable,
    key: ObjectKey,
    *,
    frame_bytes: int = FRAME_BYTES,
    cty: str | None = None,
    context: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ObjectHeader:
    """Seal a source into a sink; arguments as in `ObjectSealer`.

    Raises:
        LimitError: The source is longer than an object can be (4 TiB, 2**32 frames).
        ConfigurationError: `frame_bytes`, `cty` or `context` cannot be used.
    """
    sealer = ObjectSealer(key, frame_bytes=frame_bytes, cty=cty, context=context)
    sink.write(memoryview(sealer.header.raw))
    done = 0
    for frame in sealer.frames(source):
        sink.write(frame)
        done += len(frame) - TAG_BYTES
        if progress is not None:
            progress(done)
    return sealer.header


def open_stream(
    source: Readable,
    sink: Writable,
    recover: Recover,
    *,
    context: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    header: ObjectHeader | None = None,
) -> int:
    """Open a source into a sink; returns how many bytes of plaintext were written.

    Each frame is authenticated before it is written, but that the object is whole is known only at the
    end: on an error, drop what was written.

    Args:
        source: The sealed object; behind its header if `header` is given.
        sink: Where the plaintext goes.
        recover: Gives the content-encryption key.
        context: What the object was sealed with.
        progress: Told how many bytes of plaintext are done.
        header: From `read_header(source)`, if that was called before.

    Raises:
        OpenError: It is not a sealed object, was changed or cut off, or key or context is another.
    """
    header = header or read_header(source)
    cipher = cipher_for(header, recover(header), context)
    size = header.frame_bytes + TAG_BYTES
    index, done, frame = 0, 0, read_exactly(source, size)
    while True:
        following = read_exactly(source, size) if len(frame) == size else b""
        plaintext = cipher.open(index, frame, last=not following)
        sink.write(plaintext)
        done += len(plaintext)
        if progress is not None:
            progress(done)
        if not following:
            return done
        index, frame = index + 1, following


def cipher_for(header: ObjectHeader, cek: Secret, context: Mapping[str, str] | None) -> FrameCipher:
    """Check key and context against a header, and make its cipher; raises `OpenError`."""
    cipher = FrameCipher(header, cek.reveal())
    if (header.ctx is None) != (context is None):
        raise OpenError
    if header.ctx is not None and context is not None:
        expected = ContextMac(cek.reveal()).ctx(context)
        if not hmac.compare_digest(header.ctx, expected):
            raise OpenError
    return cipher
