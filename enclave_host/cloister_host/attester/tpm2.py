"""TPM 2.0 quotes: a small client for one device or socket (TCG "TPM 2.0 Library", parts 2 and 3).

Only four commands are spoken: CreatePrimary, Quote, PCR_Read and FlushContext, with empty passwords.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cloister.attestation import Format, report_data
from cloister.errors import UnavailableError
from cloister.jose import b64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEVICE", "Tpm2Attester", "TpmDevice", "TpmSocket", "attestation_key_point"]

DEVICE: Final = Path("/dev/tpmrm0")
_MAX_RESPONSE_BYTES: Final = 4096
_HEADER: Final = struct.Struct(">HII")
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_CREATE_PRIMARY, _QUOTE, _PCR_READ, _FLUSH = 0x131, 0x158, 0x17E, 0x165
_ENDORSEMENT: Final = 0x4000000B
_PASSWORD: Final = 0x40000009
_RETRY: Final = 0x922
_ATTEMPTS: Final = 10
_SHA256, _NULL, _ECC, _ECDSA, _P256 = 0x0B, 0x10, 0x23, 0x18, 3
_PCRS: Final = tuple(range(16))

# fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | restricted | sign
_AK_ATTRIBUTES: Final = 0x00050072
_EMPTY: Final = b"\0\0"
_AK_TEMPLATE: Final = (
    struct.pack(">HHI", _ECC, _SHA256, _AK_ATTRIBUTES)
    + _EMPTY
    + struct.pack(">HHHHH", _NULL, _ECDSA, _SHA256, _P256, _NULL)
    + _EMPTY
    + _EMPTY
)


class Transport(Protocol):
    """Port: one command to a TPM, one response from it."""

    def transmit(self, command: bytes) -> bytes:
        """Send a command and return the response."""
        ...

    def close(self) -> None:
        """Give the TPM back."""
        ...


class TpmDevice:
    """A TPM behind the kernel's resource manager."""

    def __init__(self, path: Path = DEVICE) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def transmit(self, command: bytes) -> bytes:
        """Send a command and return the response."""
        os.write(self._descriptor, command)
        return os.read(self._descriptor, _MAX_RESPONSE_BYTES)

    def close(self) -> None:
        """Close the device."""
        os.close(self._descriptor)


class TpmSocket:
    """A software TPM on a UNIX socket."""

    def __init__(self, path: Path, *, timeout_seconds: float = 5) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise

    def transmit(self, command: bytes) -> bytes:
        """Send a command and return the response."""
        self._socket.sendall(command)
        response = b""
        while len(response) < _HEADER.size or len(response) < _HEADER.unpack_from(response)[1]:
            chunk = self._socket.recv(_MAX_RESPONSE_BYTES)
            if not chunk or len(response) > _MAX_RESPONSE_BYTES:
                raise OSError("the TPM closed the connection")
            response += chunk
        return response

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Tpm2Attester:
    """Quotes by a key of the endorsement hierarchy, or by a key that the cloud provider certified.

    Args:
        connect: Opens the TPM.
        key_handle: A persistent attestation key, such as the cloud provider's; without one, a primary
            key of the endorsement hierarchy is made for each quote (the TPM always makes the same one).
        certificates: DER certificates of that key and its issuers.
        pcrs: Which SHA-256 PCRs to quote.
    """

    format: Final = Format.TPM

    def __init__(
        self,
        connect: Callable[[], Transport] = TpmDevice,
        *,
        key_handle: int | None = None,
        certificates: Sequence[bytes] = (),
        pcrs: Sequence[int] = _PCRS,
    ) -> None:
        self._connect = connect
        self._key_handle = key_handle
        self._certificates = tuple(certificates)
        self._pcrs = tuple(sorted(pcrs))

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """A quote with the digest of the statement in `extraData`, in its container (SPEC.md 4).

        Raises:
            UnavailableError: The TPM does not answer, or refuses.
        """
        extra_data = report_data(self.format, statement, nonce)["extra_data"]
        try:
            with closing(self._connect()) as transport, self._key(transport) as key:
                pcrs = {index: _pcr_read(transport, index) for index in self._pcrs}
                message, signature = _quote(transport, key, extra_data, self._pcrs)
        except (OSError, struct.error, IndexError):
            raise UnavailableError("the TPM does not answer", hint="is /dev/tpmrm0 there and ours?") from None
        return json.dumps(
            {
                "v": 1,
                "message": b64url_encode(message),
                "signature": b64url_encode(signature),
                "pcrs": {str(index): value.hex() for index, value in pcrs.items()},
                "ak_certificates": [b64url_encode(der) for der in self._certificates],
            }
        ).encode()

    @contextmanager
    def _key(self, transport: Transport) -> Iterator[int]:
        if self._key_handle is not None:
            yield self._key_handle
            return
        key, _ = _create_attestation_key(transport)
        try:
            yield key
        finally:
            _command(transport, _FLUSH, parameters=struct.pack(">I", key))


def attestation_key_point(connect: Callable[[], Transport] = TpmDevice) -> tuple[int, int]:
    """Coordinates of the P-256 attestation key that `Tpm2Attester` makes, to pin it at enrolment."""
    with closing(connect()) as transport:
        key, public = _create_attestation_key(transport)
        _command(transport, _FLUSH, parameters=struct.pack(">I", key))
    x, rest = _sized(public[len(_AK_TEMPLATE) - 4 :])
    y, _ = _sized(rest)
    return int.from_bytes(x, "big"), int.from_bytes(y, "big")


def _create_attestation_key(transport: Transport) -> tuple[int, bytes]:
    """Handle and public area of a fresh copy of the attestation key."""
    parameters = _with_size(_EMPTY + _EMPTY) + _with_size(_AK_TEMPLATE) + _EMPTY + struct.pack(">I", 0)
    response = _command(transport, _CREATE_PRIMARY, handle=_ENDORSEMENT, parameters=parameters)
    (handle,) = struct.unpack_from(">I", response)
    public, _ = _sized(response[8:])
    return handle, public


def _quote(transport: Transport, key: int, extra_data: bytes, pcrs: Sequence[int]) -> tuple[bytes, bytes]:
    parameters = _with_size(extra_data) + struct.pack(">H", _NULL) + _selection(pcrs)
    response = _command(transport, _QUOTE, handle=key, parameters=parameters)
    (size,) = struct.unpack_from(">I", response)
    message, signature = _sized(response[4 : 4 + size])
    return message, signature


def _pcr_read(transport: Transport, index: int) -> bytes:
    response = _command(transport, _PCR_READ, parameters=_selection([index]))
    digests = response[4 + len(_selection([index])) :]
    (count,) = struct.unpack_from(">I", digests)
    if count != 1:
        raise UnavailableError("the TPM has no SHA-256 bank", hint="enable the SHA-256 PCR bank")
    value, _ = _sized(digests[4:])
    return value


def _selection(pcrs: Sequence[int]) -> bytes:
    bitmap = bytearray(3)
    for index in pcrs:
        bitmap[index // 8] |= 1 << index % 8
    return struct.pack(">IHB", 1, _SHA256, len(bitmap)) + bytes(bitmap)


def _command(transport: Transport, code: int, *, handle: int | None = None, parameters: bytes) -> bytes:
    """One command, authorized with the empty password if it uses a handle; the response's body."""
    body = parameters
    if handle is not None:
        authorization = struct.pack(">I", _PASSWORD) + _EMPTY + b"\0" + _EMPTY
        body = struct.pack(">II", handle, len(authorization)) + authorization + parameters
    tag = _NO_SESSIONS if handle is None else _SESSIONS
    for _ in range(_ATTEMPTS):
        response = transport.transmit(_HEADER.pack(tag, _HEADER.size + len(body), code) + body)
        _, size, result = _HEADER.unpack_from(response)
        if result != _RETRY:
            break
    if result or size != len(response):
        raise UnavailableError(f"the TPM refused command {code:#x} with {result:#x}")
    return response[_HEADER.size :]


def _with_size(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _sized(data: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from(">H", data)
    if len(data) < 2 + size:
        raise UnavailableError("the TPM's response is truncated")
    return data[2 : 2 + size], data[2 + size :]
