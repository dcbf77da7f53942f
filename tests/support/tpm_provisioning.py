"""What a cloud provider leaves in a TPM: NV indices, persistent keys and a certificate for a key."""

from __future__ import annotations

import struct
from contextlib import closing
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cloister_host.attester import tpm_client

_NV_DEFINE, _NV_WRITE = 0x12A, 0x137
_OWNER = 0x40000001
# ownerwrite | authwrite | ownerread | authread | no_da
_ATTRIBUTES = 0x00020002 | 0x00040004 | 0x02000000
_CHUNK_BYTES = 512


def write_nv(transport: Any, index: int, contents: bytes) -> None:
    """Define an NV index that its owner reads, and fill it."""
    public = struct.pack(">IHIHH", index, 0x0B, _ATTRIBUTES, 0, len(contents))
    parameters = b"\0\0" + struct.pack(">H", len(public)) + public
    tpm_client.command(transport, _NV_DEFINE, handle=_OWNER, parameters=parameters)
    for offset in range(0, len(contents), _CHUNK_BYTES):
        chunk = contents[offset : offset + _CHUNK_BYTES]
        parameters = struct.pack(">H", len(chunk)) + chunk + struct.pack(">H", offset)
        tpm_client.command(transport, _NV_WRITE, handle=_OWNER, handles=(index,), parameters=parameters)


def public_key(connect: Any) -> ec.EllipticCurvePublicKey:
    """The attestation key of the endorsement hierarchy."""
    x, y = tpm_client.attestation_key_point(connect)
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def provision_google(connect: Any, certificate: bytes) -> None:
    """Google's certificate and template of the ECC attestation key."""
    with closing(connect()) as transport:
        write_nv(transport, 0x01C10002, certificate + bytes(16))
        write_nv(transport, 0x01C10003, tpm_client.AK_TEMPLATE)
