"""Nitro Enclaves: one ioctl on /dev/nsm, CBOR in and out (aws-nitro-enclaves-nsm-api)."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cbor2

from cloister.attestation import Format, report_data
from cloister.errors import UnavailableError

__all__ = ["DEVICE", "NitroAttester", "ask_device"]

DEVICE: Final = Path("/dev/nsm")
_MAX_REQUEST_BYTES: Final = 0x1000
_MAX_RESPONSE_BYTES: Final = 0x3000
_IOWR: Final = 3 << 30
_NSM_MAGIC: Final = 0x0A


class _Buffer(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (("request", _Buffer), ("response", _Buffer))


_NSM_IOCTL: Final = _IOWR | ctypes.sizeof(_Message) << 16 | _NSM_MAGIC << 8


def ask_device(request: bytes, *, device: Path = DEVICE) -> bytes:
    """Send one request to the Nitro security module.

    Raises:
        OSError: The device is missing or refuses.
    """
    sent = ctypes.create_string_buffer(request, len(request))
    received = ctypes.create_string_buffer(_MAX_RESPONSE_BYTES)
    message = _Message(
        _Buffer(ctypes.addressof(sent), len(request)),
        _Buffer(ctypes.addressof(received), _MAX_RESPONSE_BYTES),
    )
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _NSM_IOCTL, message)
    finally:
        os.close(descriptor)
    return received.raw[: message.response.length]


class NitroAttester:
    """Evidence of the enclave this process runs in."""

    format: Final = Format.NITRO

    def __init__(self, ask: Callable[[bytes], bytes] = ask_device) -> None:
        self._ask = ask

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """A document with the statement in `user_data` and the challenge in `nonce`.

        Raises:
            UnavailableError: The security module does not answer with a document.
        """
        return self._attest(**report_data(self.format, statement, nonce), public_key=None)

    def recipient_document(self, public_key: bytes) -> bytes:
        """A document with a public key, so that a KMS encrypts what it answers to this enclave.

        It says nothing else: no statement is bound, so no client takes it for this host's evidence.

        Args:
            public_key: DER, SubjectPublicKeyInfo.

        Raises:
            UnavailableError: The security module does not answer with a document.
        """
        return self._attest(public_key=public_key, user_data=None, nonce=None)

    def _attest(self, **fields: bytes | None) -> bytes:
        request = cbor2.dumps({"Attestation": fields})
        if len(request) > _MAX_REQUEST_BYTES:
            raise UnavailableError("the statement is too large for the Nitro security module")
        try:
            match cbor2.loads(self._ask(request)):
                case {"Attestation": {"document": bytes() as document}}:
                    return document
                case _:
                    raise UnavailableError("the Nitro security module refused to attest")
        except (OSError, cbor2.CBORDecodeError):
            raise UnavailableError(
                "the Nitro security module does not answer", hint="is this process inside an enclave?"
            ) from None
