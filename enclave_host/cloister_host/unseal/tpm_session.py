"""Salted TPM 2.0 sessions: commands are authorized, and their first parameter crosses the bus encrypted.

TCG "TPM 2.0 Library", part 1, sections 11.4.9 (KDFa), 11.4.9.3 (KDFe), 19.6 (sessions) and 21 (parameter
encryption). The salt is agreed on with the storage root key, so whoever only listens to the bus learns
neither the session key nor what is encrypted under it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cloister.errors import UnavailableError
from cloister_host.attester import tpm_client
from cloister_host.attester.tpm_client import Transport

__all__ = ["OWNER", "Session", "TpmError", "digest", "salted_session"]

OWNER: Final = 0x40000001
_NULL_HANDLE: Final = 0x40000007
_START: Final = 0x176
_AES, _CFB, _NULL, _SHA256, _ECC, _P256 = 6, 0x43, 0x10, 0x0B, 0x23, 3
_HEADER: Final = struct.Struct(">HII")
_SESSIONS: Final = 0x8002
_RETRY: Final = 0x922
_ATTEMPTS: Final = 10
_NONCE_BYTES: Final = 32
_BLOCK_BYTES: Final = 16
_COORDINATE_BYTES: Final = 32
# continueSession; decrypt: the command's first parameter is encrypted; encrypt: the response's is.
_CONTINUE, _DECRYPT, _ENCRYPT = 0x01, 0x20, 0x40
_KINDS: Final = {"hmac": 0, "policy": 1}

# TCG "TPM v2.0 Provisioning Guidance", 7.5.1: the storage root key, ECC P-256.
_SRK_ATTRIBUTES: Final = 0x00030472
SRK_TEMPLATE: Final = (
    struct.pack(">HHI", _ECC, _SHA256, _SRK_ATTRIBUTES)
    + b"\0\0"
    + struct.pack(">HHHHHH", _AES, 128, _CFB, _NULL, _P256, _NULL)
    + b"\0\0"
    + b"\0\0"
)


class TpmError(UnavailableError):
    """The TPM refused a command.

    Attributes:
        reason: The response code without the number of the handle, session or parameter it is about.
    """

    retryable = False

    def __init__(self, command: int, result: int) -> None:
        # Format-one codes carry the number of what they are about (part 2, section 6.6).
        self.reason: Final = result & 0xBF if result & 0x80 else result
        super().__init__(f"the TPM refused command {command:#x} with {result:#x}")


@dataclass(slots=True, kw_only=True)
class Session:
    """An open session; the nonce rolls with each command."""

    transport: Transport
    handle: int
    key: bytes
    nonce_tpm: bytes

    def run(
        self,
        code: int,
        *,
        handles: Sequence[int],
        names: Sequence[bytes],
        parameters: bytes,
        encrypt: Literal["", "command", "response"] = "",
    ) -> bytes:
        """Run a command that this session authorizes; gives the response's parameters.

        Args:
            code: The command.
            handles: Its handles; the first is the one that is authorized.
            names: The names of what the handles stand for (part 1, section 16).
            parameters: Its parameters.
            encrypt: Which first parameter, a TPM2B, is encrypted.

        Raises:
            TpmError: The TPM refused.
            UnavailableError: It does not answer as a TPM does.
        """
        attributes = _CONTINUE | {"": 0, "command": _DECRYPT, "response": _ENCRYPT}[encrypt]
        nonce = os.urandom(_NONCE_BYTES)
        if encrypt == "command":
            parameters = self._first(parameters, nonce, self.nonce_tpm, encrypting=True)
        command_digest = digest(struct.pack(">I", code), *names, parameters)
        tag = self._hmac(command_digest, nonce, self.nonce_tpm, attributes)
        authorization = struct.pack(">I", self.handle) + _sized(nonce) + bytes([attributes]) + _sized(tag)
        body = (
            struct.pack(f">{len(handles)}I", *handles)
            + struct.pack(">I", len(authorization))
            + authorization
            + parameters
        )
        response = self._transmit(code, body)
        (size,) = struct.unpack_from(">I", response)
        answered, rest = response[4 : 4 + size], response[4 + size :]
        nonce_tpm, rest = _take(rest)
        found, rest = _take(rest[1:]) if rest else (b"", b"")
        expected = self._hmac(digest(struct.pack(">II", 0, code), answered), nonce_tpm, nonce, attributes)
        if rest or not hmac.compare_digest(found, expected):
            raise UnavailableError("what answers is not the TPM that this session is with")
        self.nonce_tpm = nonce_tpm
        return (
            self._first(answered, nonce_tpm, nonce, encrypting=False) if encrypt == "response" else answered
        )

    def _transmit(self, code: int, body: bytes) -> bytes:
        for _ in range(_ATTEMPTS):
            response = self.transport.transmit(_HEADER.pack(_SESSIONS, _HEADER.size + len(body), code) + body)
            _, size, result = _HEADER.unpack_from(response)
            if result != _RETRY:
                break
        if result:
            raise TpmError(code, result)
        if size != len(response):
            raise UnavailableError("the TPM's response is truncated")
        return response[_HEADER.size :]

    def _hmac(self, parameters: bytes, newer: bytes, older: bytes, attributes: int) -> bytes:
        # What is authorized here has no authorization value of its own: the key is the session's alone.
        return hmac.digest(self.key, parameters + newer + older + bytes([attributes]), "sha256")

    def _first(self, parameters: bytes, newer: bytes, older: bytes, *, encrypting: bool) -> bytes:
        """Encrypt or decrypt the first parameter in place (part 1, section 21.3)."""
        material = _kdfa(self.key, b"CFB", newer, older, 8 * 2 * _BLOCK_BYTES)
        first, rest = _take(parameters)
        done = _aes_cfb(material[:_BLOCK_BYTES], material[_BLOCK_BYTES:], first, encrypting=encrypting)
        return _sized(done) + rest


@contextmanager
def salted_session(transport: Transport, kind: Literal["hmac", "policy"]) -> Iterator[Session]:
    """Open a session whose key only this process and the TPM know; closed at the end.

    Raises:
        UnavailableError: The TPM refuses, or does not answer as one.
    """
    srk, public = tpm_client.create_primary(transport, SRK_TEMPLATE, hierarchy=OWNER)
    try:
        nonce = os.urandom(_NONCE_BYTES)
        secret, encrypted = _salt(public)
        parameters = (
            _sized(nonce)
            + _sized(encrypted)
            + bytes([_KINDS[kind]])
            + struct.pack(">HHHH", _AES, 128, _CFB, _SHA256)
        )
        response = tpm_client.command(
            transport, _START, parameters=struct.pack(">II", srk, _NULL_HANDLE) + parameters
        )
    finally:
        tpm_client.flush(transport, srk)
    (handle,) = struct.unpack_from(">I", response)
    try:
        nonce_tpm, _ = _take(response[4:])
        key = _kdfa(secret, b"ATH", nonce_tpm, nonce, 256)
        yield Session(transport=transport, handle=handle, key=key, nonce_tpm=nonce_tpm)
    finally:
        tpm_client.flush(transport, handle)


def digest(*parts: bytes) -> bytes:
    """SHA-256 over these parts."""
    return hashlib.sha256(b"".join(parts)).digest()


def _salt(public: bytes) -> tuple[bytes, bytes]:
    """A salt agreed on with the storage root key, and what the TPM needs to agree too (part 1, C.6.1)."""
    x, rest = _take(public[len(SRK_TEMPLATE) - 4 :])
    y, _ = _take(rest)
    try:
        theirs = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
        ).public_key()
    except ValueError:
        raise UnavailableError("the TPM's storage root key is malformed") from None
    ours = ec.generate_private_key(ec.SECP256R1())
    numbers = ours.public_key().public_numbers()
    mine = [value.to_bytes(_COORDINATE_BYTES, "big") for value in (numbers.x, numbers.y)]
    shared = ours.exchange(ec.ECDH(), theirs)
    secret = digest(struct.pack(">I", 1), shared, b"SECRET\0", mine[0], x.rjust(_COORDINATE_BYTES, b"\0"))
    return secret, _sized(mine[0]) + _sized(mine[1])


def _kdfa(key: bytes, label: bytes, newer: bytes, older: bytes, bits: int) -> bytes:
    context = struct.pack(">I", 1) + label + b"\0" + newer + older + struct.pack(">I", bits)
    return hmac.digest(key, context, "sha256")[: bits // 8]


def _aes_cfb(key: bytes, iv: bytes, data: bytes, *, encrypting: bool) -> bytes:
    """AES-128 in CFB mode with whole blocks of feedback, out of single blocks."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 (the block cipher itself)
    done = b""
    for start in range(0, len(data), _BLOCK_BYTES):
        part = data[start : start + _BLOCK_BYTES]
        stream = block.update(iv)[: len(part)]
        mixed = bytes(a ^ b for a, b in zip(part, stream, strict=True))
        done += mixed
        iv = (mixed if encrypting else part).ljust(_BLOCK_BYTES, b"\0")
    return done


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < 2:  # noqa: PLR2004 (the size of a size)
        raise UnavailableError("the TPM's response is truncated")
    (size,) = struct.unpack_from(">H", data)
    if len(data) < 2 + size:
        raise UnavailableError("the TPM's response is truncated")
    return data[2 : 2 + size], data[2 + size :]
