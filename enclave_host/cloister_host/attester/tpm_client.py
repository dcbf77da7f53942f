"""A small TPM 2.0 client for one device or socket (TCG "TPM 2.0 Library", parts 2 and 3).

Six commands are spoken here: CreatePrimary, Quote, PCR_Read, NV_ReadPublic, NV_Read and FlushContext, with
empty passwords. Sessions are in `unseal.tpm_session`.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

from cloister.errors import UnavailableError

__all__ = [
    "AK_TEMPLATE",
    "DEVICE",
    "TpmDevice",
    "TpmSocket",
    "Transport",
    "attestation_key_point",
    "command",
    "create_primary",
    "flush",
    "open_tpm",
    "pcr_read",
    "pcr_selection",
    "quote",
    "read_nv",
]

DEVICE: Final = Path("/dev/tpmrm0")
_MAX_RESPONSE_BYTES: Final = 4096
_HEADER: Final = struct.Struct(">HII")
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_CREATE_PRIMARY, _QUOTE, _PCR_READ, _FLUSH = 0x131, 0x158, 0x17E, 0x165
_NV_READ_PUBLIC, _NV_READ = 0x169, 0x14E
_OWNER: Final = 0x40000001
_ENDORSEMENT: Final = 0x4000000B
_PASSWORD: Final = 0x40000009
_RETRY: Final = 0x922
_HANDLE_UNKNOWN: Final = 0x18B
_ATTEMPTS: Final = 10
_QUEUE_SECONDS: Final = 0.01
_NV_CHUNK_BYTES: Final = 512
_MAX_NV_BYTES: Final = 8192
_SHA256, _NULL, _ECC, _ECDSA, _P256 = 0x0B, 0x10, 0x23, 0x18, 3

# fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | restricted | sign
_AK_ATTRIBUTES: Final = 0x00050072
_EMPTY: Final = b"\0\0"
AK_TEMPLATE: Final = (
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
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                self._socket.connect(os.fspath(path))
            except BlockingIOError:  # a software TPM serves one after another, and its queue is full
                if time.monotonic() > deadline:
                    self._socket.close()
                    raise
                time.sleep(_QUEUE_SECONDS)
            except OSError:
                self._socket.close()
                raise
            else:
                return

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


def open_tpm(path: Path = DEVICE) -> Transport:
    """Open a TPM's device, or the socket of a software TPM.

    Raises:
        OSError: There is none.
    """
    return TpmSocket(path) if stat.S_ISSOCK(path.stat().st_mode) else TpmDevice(path)


def attestation_key_point(connect: Callable[[], Transport] = TpmDevice) -> tuple[int, int]:
    """Coordinates of the P-256 attestation key that `Tpm2Attester` makes, to pin it at enrolment."""
    with closing(connect()) as transport:
        key, public = create_primary(transport)
        flush(transport, key)
    x, rest = _sized(public[len(AK_TEMPLATE) - 4 :])
    y, _ = _sized(rest)
    return int.from_bytes(x, "big"), int.from_bytes(y, "big")


def create_primary(
    transport: Transport, template: bytes = AK_TEMPLATE, *, hierarchy: int = _ENDORSEMENT
) -> tuple[int, bytes]:
    """Handle and public area of a hierarchy's key for a template: the same one each time."""
    parameters = _with_size(_EMPTY + _EMPTY) + _with_size(template) + _EMPTY + struct.pack(">I", 0)
    response = command(transport, _CREATE_PRIMARY, handle=hierarchy, parameters=parameters)
    (handle,) = struct.unpack_from(">I", response)
    public, _ = _sized(response[8:])
    return handle, public


def flush(transport: Transport, key: int) -> None:
    """Drop a key from the TPM's memory."""
    command(transport, _FLUSH, parameters=struct.pack(">I", key))


def read_nv(transport: Transport, index: int) -> bytes | None:
    """The contents of an NV index that its owner may read, or None if there is no such index."""
    try:
        response = command(transport, _NV_READ_PUBLIC, parameters=struct.pack(">I", index))
    except _NoSuchHandleError:
        return None
    public, _ = _sized(response)
    (size,) = struct.unpack_from(">H", public, len(public) - 2)
    if size > _MAX_NV_BYTES:
        raise UnavailableError("an NV index of the TPM is larger than expected")
    contents = b""
    while len(contents) < size:
        wanted = min(_NV_CHUNK_BYTES, size - len(contents))
        parameters = struct.pack(">HH", wanted, len(contents))
        body = command(transport, _NV_READ, handle=_OWNER, handles=(index,), parameters=parameters)
        chunk, _ = _sized(body[4:])
        if not chunk:
            raise UnavailableError("the TPM's response is truncated")
        contents += chunk
    return contents


def quote(transport: Transport, key: int, extra_data: bytes, pcrs: Sequence[int]) -> tuple[bytes, bytes]:
    """TPMS_ATTEST and TPMT_SIGNATURE over SHA-256 PCRs, in the key's own scheme."""
    parameters = _with_size(extra_data) + struct.pack(">H", _NULL) + pcr_selection(pcrs)
    response = command(transport, _QUOTE, handle=key, parameters=parameters)
    (size,) = struct.unpack_from(">I", response)
    message, signature = _sized(response[4 : 4 + size])
    return message, signature


def pcr_read(transport: Transport, index: int) -> bytes:
    """The value of one SHA-256 PCR."""
    response = command(transport, _PCR_READ, parameters=pcr_selection([index]))
    digests = response[4 + len(pcr_selection([index])) :]
    (count,) = struct.unpack_from(">I", digests)
    if count != 1:
        raise UnavailableError("the TPM has no SHA-256 bank", hint="enable the SHA-256 PCR bank")
    value, _ = _sized(digests[4:])
    return value


def pcr_selection(pcrs: Sequence[int]) -> bytes:
    """TPML_PCR_SELECTION of SHA-256 PCRs."""
    bitmap = bytearray(3)
    for index in pcrs:
        bitmap[index // 8] |= 1 << index % 8
    return struct.pack(">IHB", 1, _SHA256, len(bitmap)) + bytes(bitmap)


class _NoSuchHandleError(UnavailableError):
    """There is nothing at this handle."""


def command(
    transport: Transport,
    code: int,
    *,
    handle: int | None = None,
    handles: Sequence[int] = (),
    parameters: bytes,
) -> bytes:
    """One command, authorized with the empty password if it uses a handle; the response's body."""
    body = parameters
    if handle is not None:
        authorization = struct.pack(">I", _PASSWORD) + _EMPTY + b"\0" + _EMPTY
        named = struct.pack(f">{1 + len(handles)}I", handle, *handles)
        body = named + struct.pack(">I", len(authorization)) + authorization + parameters
    tag = _NO_SESSIONS if handle is None else _SESSIONS
    for _ in range(_ATTEMPTS):
        response = transport.transmit(_HEADER.pack(tag, _HEADER.size + len(body), code) + body)
        _, size, result = _HEADER.unpack_from(response)
        if result != _RETRY:
            break
    if result == _HANDLE_UNKNOWN:
        raise _NoSuchHandleError("the TPM has nothing at this handle")
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
