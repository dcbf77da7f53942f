"""Read what a KMS encrypted to an enclave: CMS EnvelopedData with one recipient (RFC 5652, section 6).

AWS KMS writes BER, with lengths that are told by an end mark and content in pieces, which parsers of DER do
not read. This reader knows that one shape, RSAES-OAEP with SHA-256 and AES-256-CBC, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256

from cloister.errors import OpenError

__all__ = ["MAX_BYTES", "open_enveloped"]

MAX_BYTES: Final = 8192
MAX_DEPTH: Final = 12
MAX_NODES: Final = 128
_KEY_BYTES: Final = 32
_IV_BYTES: Final = 16

_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
_OCTETS_IN_PIECES, _PRIMITIVE_0, _CONSTRUCTED_0 = 0x24, 0x80, 0xA0
_CONSTRUCTED, _LONG_TAG = 0x20, 0x1F
_INDEFINITE: Final = 0x80
_ENVELOPED_DATA: Final = bytes.fromhex("2a864886f70d010703")
_DATA: Final = bytes.fromhex("2a864886f70d010701")
_RSAES_OAEP: Final = bytes.fromhex("2a864886f70d010107")
_AES_256_CBC: Final = bytes.fromhex("60864801650304012a")
_VERSION: Final = b"\x02"


@dataclass(frozen=True, slots=True)
class _Node:
    """A value: the bytes of a primitive one, or the parts of a constructed one."""

    tag: int
    octets: bytes = b""
    parts: tuple[_Node, ...] = ()


def open_enveloped(enveloped: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """Decrypt what was encrypted to a key.

    Raises:
        OpenError: It has another shape, or does not open under this key.
    """
    try:
        encrypted_key, iv, content = _parse(enveloped)
        oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
        cek = key.decrypt(encrypted_key, oaep)
        if len(cek) != _KEY_BYTES or len(iv) != _IV_BYTES:
            raise OpenError
        decryptor = Cipher(algorithms.AES(cek), modes.CBC(iv)).decryptor()
        padded = decryptor.update(content) + decryptor.finalize()
        unpadder = block_padding.PKCS7(algorithms.AES.block_size).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise OpenError from None


def _parse(enveloped: bytes) -> tuple[bytes, bytes, bytes]:
    """The encrypted key, the IV and the encrypted content."""
    if len(enveloped) > MAX_BYTES:
        raise OpenError
    root, rest = _Parser().node(enveloped, 0)
    if rest:
        raise OpenError
    match root:
        case _Node(
            tag=0x30,
            parts=(
                _Node(tag=0x06, octets=kind),
                _Node(
                    tag=0xA0,
                    parts=(
                        _Node(
                            tag=0x30,
                            parts=(
                                _Node(tag=0x02, octets=version),
                                _Node(tag=0x31, parts=(recipient,)),
                                _Node(
                                    tag=0x30,
                                    parts=(
                                        _Node(tag=0x06, octets=content_kind),
                                        _Node(
                                            tag=0x30,
                                            parts=(_Node(tag=0x06, octets=cipher), iv),
                                        ),
                                        content,
                                    ),
                                ),
                            ),
                        ),
                    ),
                ),
            ),
        ) if (kind, version, content_kind, cipher) == (_ENVELOPED_DATA, _VERSION, _DATA, _AES_256_CBC):
            return _recipient(recipient), _octets(iv, _OCTETS), _octets(content, _PRIMITIVE_0)
        case _:
            raise OpenError


def _recipient(recipient: _Node) -> bytes:
    """The encrypted key in a KeyTransRecipientInfo that names its key by a subject key identifier."""
    match recipient:
        case _Node(
            tag=0x30,
            parts=(
                _Node(tag=0x02, octets=version),
                _Node(tag=0x80),
                _Node(tag=0x30, parts=(_Node(tag=0x06, octets=algorithm), *_)),
                encrypted_key,
            ),
        ) if (version, algorithm) == (_VERSION, _RSAES_OAEP):
            return _octets(encrypted_key, _OCTETS)
        case _:
            raise OpenError


def _octets(node: _Node, tag: int) -> bytes:
    """An octet string, whole or in pieces."""
    if node.tag == tag:
        return node.octets
    if node.tag != tag | _CONSTRUCTED or not node.parts:
        raise OpenError
    return b"".join(_octets(part, _OCTETS) for part in node.parts)


class _Parser:
    """Reads BER with one-byte tags; how deep and how much is limited."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def node(self, data: bytes, depth: int) -> tuple[_Node, bytes]:
        """The first value of some bytes, and what follows it."""
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0 or len(data) < 2 or data[0] & _LONG_TAG == _LONG_TAG:  # noqa: PLR2004 (a tag and a length)
            raise OpenError
        tag, length, rest = data[0], data[1], data[2:]
        if length == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise OpenError
            return self._until_end(tag, rest, depth)
        if length > _INDEFINITE:
            count = length - _INDEFINITE
            if count > 2 or len(rest) < count:  # noqa: PLR2004 (more is longer than may be)
                raise OpenError
            length, rest = int.from_bytes(rest[:count], "big"), rest[count:]
        if len(rest) < length:
            raise OpenError
        content, rest = rest[:length], rest[length:]
        if not tag & _CONSTRUCTED:
            return _Node(tag, content), rest
        parts = []
        while content:
            part, content = self.node(content, depth + 1)
            parts.append(part)
        return _Node(tag, parts=tuple(parts)), rest

    def _until_end(self, tag: int, data: bytes, depth: int) -> tuple[_Node, bytes]:
        parts = []
        while data[:2] != b"\0\0":
            part, data = self.node(data, depth + 1)
            parts.append(part)
        return _Node(tag, parts=tuple(parts)), data[2:]
