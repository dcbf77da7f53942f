"""Streamed replies: a sequence of frames under the key of one request (PROTOCOL 6).

The frames are STREAM (Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015), as in a sealed object, but each has
a length of its own: one frame is one JSON object. Only its last frame makes a stream whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.errors import LimitError, OpenError
from cloister.protocol.exchange import OpenedRequest, SealedRequest, dump_body, load_body
from cloister.protocol.padding import pad
from cloister.secret import Secret

__all__ = ["MAGIC", "MAX_FRAME_BYTES", "StreamOpener", "StreamSealer"]

MAGIC: Final = b"clstrm\x00\x01"
MAX_FRAME_BYTES: Final = 32 << 20
_INFO: Final = b"cloister.stream.v1"
_SALT_BYTES: Final = 32
_HEADER_BYTES: Final = len(MAGIC) + _SALT_BYTES
_LENGTH_BYTES: Final = 4
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32
_PREFIX_BYTES: Final = 7
_MAX_FRAMES: Final = 2**32 - 1


class _Frames:
    """Key, nonces and additional data of one stream."""

    def __init__(self, cek: Secret, request_digest: bytes, header: bytes) -> None:
        okm = HKDF(
            algorithm=SHA512(),
            length=_KEY_BYTES + _PREFIX_BYTES,
            salt=header[len(MAGIC) :],
            info=_INFO + request_digest,
        ).derive(cek.reveal())
        self._aead = AESGCM(okm[:_KEY_BYTES])
        self._prefix = okm[_KEY_BYTES:]
        self._digest = hashlib.sha256(header).digest()

    def seal(self, index: int, plaintext: bytes, *, last: bool) -> bytes:
        return self._aead.encrypt(self._nonce(index, last=last), plaintext, self._aad(index))

    def open(self, index: int, frame: bytes, *, last: bool) -> bytes:
        return self._aead.decrypt(self._nonce(index, last=last), frame, self._aad(index))

    def _nonce(self, index: int, *, last: bool) -> bytes:
        return self._prefix + index.to_bytes(4, "big") + bytes([last])

    def _aad(self, index: int) -> bytes:
        return self._digest + index.to_bytes(8, "big")


class StreamSealer:
    """Seals the frames of one streamed reply, in order, each once.

    Args:
        request: The request it answers.
    """

    def __init__(self, request: OpenedRequest) -> None:
        self._header = MAGIC + os.urandom(_SALT_BYTES)
        self._frames = _Frames(request.cek, request.digest, self._header)
        self._index = 0
        self._ended = False

    def seal(self, body: Mapping[str, Any] | bytes, *, last: bool = False) -> bytes:
        """The bytes to send for one frame; those of the first begin with the stream's header.

        Args:
            body: JSON members, or an encoded JSON object.
            last: Whether nothing follows.

        Raises:
            LimitError: The frame is too large, or there are too many.
        """
        assert not self._ended, "the stream has ended"
        plaintext = pad(body if isinstance(body, bytes) else dump_body(body))
        if len(plaintext) + _TAG_BYTES > MAX_FRAME_BYTES or self._index >= _MAX_FRAMES:
            raise LimitError("a frame of the reply is too large", hint="send fewer rows in one call")
        frame = self._frames.seal(self._index, plaintext, last=last)
        header = self._header if self._index == 0 else b""
        self._index += 1
        self._ended = last
        return header + bytes([last]) + len(frame).to_bytes(_LENGTH_BYTES, "big") + frame


class StreamOpener:
    """Opens a streamed reply as it arrives, in pieces of any size; holds one frame at most.

    Args:
        request: The request that it must be the answer to.
    """

    def __init__(self, request: SealedRequest) -> None:
        self._cek = request.cek
        self._digest = hashlib.sha256(request.token.encode()).digest()
        self._buffer = bytearray()
        self._frames: _Frames | None = None
        self._index = 0
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        """Take what arrived; gives each frame that is now complete.

        Raises:
            OpenError: It is not the reply to this request, or something follows its last frame.
        """
        self._buffer += data
        if self._frames is None:
            start = bytes(self._buffer[: len(MAGIC)])
            if not MAGIC.startswith(start):
                raise OpenError("this is not a streamed reply")
            if len(self._buffer) < _HEADER_BYTES:
                return
            self._frames = _Frames(self._cek, self._digest, bytes(self._buffer[:_HEADER_BYTES]))
            del self._buffer[:_HEADER_BYTES]
        while (frame := self._next()) is not None:
            last, ciphertext = frame
            try:
                plaintext = self._frames.open(self._index, ciphertext, last=last)
            except InvalidTag:
                raise OpenError("the stream is not the reply to this request") from None
            self._index += 1
            self._ended = last
            yield load_body(plaintext)

    def finish(self) -> None:
        """Nothing more arrives.

        Raises:
            OpenError: The last frame is missing: the stream was cut off.
        """
        if not self._ended or self._buffer:
            raise OpenError("the reply was cut off before its last frame")

    def _next(self) -> tuple[bool, bytes] | None:
        if self._buffer and self._ended:
            raise OpenError("something follows the last frame of the reply")
        start = 1 + _LENGTH_BYTES
        if len(self._buffer) < start:
            return None
        flag, length = self._buffer[0], int.from_bytes(self._buffer[1:start], "big")
        if flag > 1 or not _TAG_BYTES < length <= MAX_FRAME_BYTES:
            raise OpenError("this is not a streamed reply")
        if len(self._buffer) < start + length:
            return None
        frame = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        return flag == 1, frame
