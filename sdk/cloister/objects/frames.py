"""The frames: AES-256-GCM in the STREAM construction, under a key of this object alone (SPEC section 3).

STREAM: Hoang, Reyhanitabar, Rogaway, Vizar, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015. The nonce tells the position and whether the frame is the last, so that
frames cannot be reordered, dropped, repeated or cut off at the end.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.errors import LimitError, OpenError

if TYPE_CHECKING:
    from cloister.objects.header import ObjectHeader

__all__ = [
    "FRAME_BYTES",
    "MAX_FRAME_BYTES",
    "MIN_FRAME_BYTES",
    "TAG_BYTES",
    "FrameCipher",
    "ObjectKeys",
    "object_keys",
    "plaintext_bytes",
]

FRAME_BYTES: Final = 1024 * 1024
MIN_FRAME_BYTES: Final = 4 * 1024
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
MAX_FRAMES: Final = 2**32 - 1
MAX_BYTES: Final = 2**42
TAG_BYTES: Final = 16
_INFO: Final = b"cloister.object.v1"
_KEY_BYTES: Final = 32
_COMMITMENT_BYTES: Final = 32
_NONCE_PREFIX_BYTES: Final = 7


@dataclass(frozen=True, slots=True)
class ObjectKeys:
    """What one object's salt makes of a content-encryption key."""

    message_key: bytes = field(repr=False)
    commitment: bytes
    nonce_prefix: bytes = field(repr=False)


def object_keys(cek: bytes, salt: bytes) -> ObjectKeys:
    """Derive an object's keys: HKDF-SHA512 (RFC 5869) with the object's salt."""
    length = _KEY_BYTES + _COMMITMENT_BYTES + _NONCE_PREFIX_BYTES
    okm = HKDF(algorithm=SHA512(), length=length, salt=salt, info=_INFO).derive(cek)
    rest = okm[_KEY_BYTES:]
    return ObjectKeys(okm[:_KEY_BYTES], rest[:_COMMITMENT_BYTES], rest[_COMMITMENT_BYTES:])


class FrameCipher:
    """Seals and opens the frames of one object, in buffers that are used again.

    Not thread-safe; what it returns is valid until its next call.

    Args:
        header: The object's header.
        cek: Its content-encryption key.

    Raises:
        OpenError: The header commits to another key.
    """

    def __init__(self, header: ObjectHeader, cek: bytes) -> None:
        keys = object_keys(cek, header.salt)
        if not hmac.compare_digest(keys.commitment, header.commitment):
            raise OpenError
        self._aead = AESGCM(keys.message_key)
        self._prefix = keys.nonce_prefix
        self._digest = header.digest
        self._frame_bytes = header.frame_bytes
        self._buffer = memoryview(bytearray())

    def seal(self, index: int, plaintext: bytes | bytearray | memoryview, *, last: bool) -> memoryview:
        """Seal one frame; the caller never seals two different frames under one index.

        Raises:
            LimitError: The object is too long.
        """
        assert len(plaintext) == self._frame_bytes or (last and len(plaintext) < self._frame_bytes)
        if index >= MAX_FRAMES or (index + 1) * self._frame_bytes > MAX_BYTES:
            raise LimitError(
                "a sealed object has at most 4 TiB", hint="seal it in parts, or in larger frames"
            )
        frame = self._room(len(plaintext) + TAG_BYTES)
        self._aead.encrypt_into(self._nonce(index, last=last), plaintext, self._aad(index), frame)
        return frame

    def open(self, index: int, frame: bytes | bytearray | memoryview, *, last: bool) -> memoryview:
        """Open one frame, or raise `OpenError`."""
        size = len(frame) - TAG_BYTES
        if not 0 <= size <= self._frame_bytes or not 0 <= index < MAX_FRAMES:
            raise OpenError
        if not last and size != self._frame_bytes:
            raise OpenError
        # An empty last frame is the whole of an empty object and nothing else: one form for each content.
        if last and size == 0 and index > 0:
            raise OpenError
        plaintext = self._room(size)
        try:
            self._aead.decrypt_into(self._nonce(index, last=last), frame, self._aad(index), plaintext)
        except InvalidTag:
            raise OpenError from None
        return plaintext

    def _room(self, size: int) -> memoryview:
        """So much of the buffer, which is as large as the largest frame so far: small objects stay cheap."""
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return self._buffer[:size]

    def _nonce(self, index: int, *, last: bool) -> bytes:
        return self._prefix + index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")

    def _aad(self, index: int) -> bytes:
        return self._digest + index.to_bytes(8, "big")


def plaintext_bytes(header: ObjectHeader, object_bytes: int) -> tuple[int, int]:
    """How many bytes of plaintext and how many frames an object of so many bytes has.

    Raises:
        OpenError: No object has this length.
    """
    body = object_bytes - len(header)
    frames = -(-body // (header.frame_bytes + TAG_BYTES))
    size = body - frames * TAG_BYTES
    if frames < 1 or not (frames - 1) * header.frame_bytes <= size or (size == 0 and frames > 1):
        raise OpenError
    return size, frames
