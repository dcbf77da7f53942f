"""What a cloud provider leaves in a TPM: NV indices, persistent keys and a certificate for a key."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import closing
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloister_host.attester import tpm_client

_NV_DEFINE, _NV_WRITE, _EVICT_CONTROL = 0x12A, 0x137, 0x120
_AZURE_REPORT, _AZURE_KEY = 0x01400001, 0x81000003
# RSA 2048, SHA-256, restricted signing with RSASSA
_RSA_TEMPLATE = (
    struct.pack(">HHI", 1, 0x0B, 0x00050072)
    + b"\0\0"
    + struct.pack(">HHHHI", 0x10, 0x14, 0x0B, 2048, 0)
    + b"\0\0"
)
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


def provision_azure(connect: Any, report: Callable[[rsa.RSAPublicKey], bytes]) -> None:
    """Azure's persistent attestation key, and the HCL report that names it."""
    with closing(connect()) as transport:
        handle, public = tpm_client.create_primary(transport, _RSA_TEMPLATE)
        parameters = struct.pack(">I", _AZURE_KEY)
        tpm_client.command(transport, _EVICT_CONTROL, handle=_OWNER, handles=(handle,), parameters=parameters)
        tpm_client.flush(transport, handle)
        key = rsa.RSAPublicNumbers(65537, int.from_bytes(public[-256:], "big")).public_key()
        write_nv(transport, _AZURE_REPORT, report(key))  # Azure pads it; swtpm has room for 2048 bytes
