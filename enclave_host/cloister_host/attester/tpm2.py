"""TPM 2.0 quotes, by a key that the cloud provider vouches for or one of the endorsement hierarchy.

Where the provider left something in the TPM's NV memory it is used: Google's AK certificate and the
template of its key (go-tpm-tools, `client/keys.go`), Azure's HCL report and its persistent key (Microsoft,
"vTPM on confidential VMs").
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

from cloister.attestation import Format, report_data
from cloister.attestation.formats.azure_hcl import MAGIC
from cloister.errors import UnavailableError
from cloister.jose import b64url_encode
from cloister_host.attester import tpm_client
from cloister_host.attester.tpm_client import TpmDevice, Transport

__all__ = ["Tpm2Attester", "tpm_attester"]

_PCRS: Final = tuple(range(16))
_ALL_PCRS: Final = tuple(range(24))

# NV indices and handles by provider. Google's come in pairs of certificate and template, ECC before RSA.
_GOOGLE_KEYS: Final = ((0x01C10002, 0x01C10003), (0x01C10000, 0x01C10001))
_AZURE_HCL_REPORT: Final = 0x01400001
_AZURE_KEY: Final = 0x81000003


def tpm_attester(connect: Callable[[], Transport]) -> Tpm2Attester:
    """The attester that fits what the cloud provider left in this TPM.

    Raises:
        UnavailableError: The TPM does not answer.
    """
    with _answering(), closing(connect()) as transport:
        report = tpm_client.read_nv(transport, _AZURE_HCL_REPORT)
        if report is not None and report.startswith(MAGIC):
            return Tpm2Attester(connect, key_handle=_AZURE_KEY, hcl_report=report, pcrs=_ALL_PCRS)
        for certificate_index, template_index in _GOOGLE_KEYS:
            certificate = tpm_client.read_nv(transport, certificate_index)
            template = tpm_client.read_nv(transport, template_index)
            if certificate is not None and template is not None:
                return Tpm2Attester(connect, template=template, certificates=(_one_der(certificate),))
    return Tpm2Attester(connect)


class Tpm2Attester:
    """Quotes by a key of the endorsement hierarchy, or by a key that the cloud provider certified.

    Args:
        connect: Opens the TPM.
        key_handle: A persistent attestation key, such as Azure's; without one, a primary key of the
            endorsement hierarchy is made for each quote (the TPM always makes the same one).
        template: Of that primary key, if it is the provider's.
        certificates: DER certificates of that key and its issuers.
        hcl_report: Azure's report that vouches for the key.
        pcrs: Which SHA-256 PCRs to quote.
    """

    def __init__(
        self,
        connect: Callable[[], Transport] = TpmDevice,
        *,
        key_handle: int | None = None,
        template: bytes | None = None,
        certificates: Sequence[bytes] = (),
        hcl_report: bytes | None = None,
        pcrs: Sequence[int] = _PCRS,
    ) -> None:
        self.format: Final = Format.TPM if hcl_report is None else Format.AZURE_VTPM
        self._connect = connect
        self._template = template
        self._hcl_report = hcl_report
        self._key_handle = key_handle
        self._certificates = tuple(certificates)
        self._pcrs = tuple(sorted(pcrs))

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """A quote with the digest of the statement in `extraData`, in its container (SPEC.md 4).

        Raises:
            UnavailableError: The TPM does not answer, or refuses.
        """
        extra_data = report_data(self.format, statement, nonce)["extra_data"]
        with _answering(), closing(self._connect()) as transport, self._key(transport) as key:
            pcrs = {index: tpm_client.pcr_read(transport, index) for index in self._pcrs}
            message, signature = tpm_client.quote(transport, key, extra_data, self._pcrs)
        azure = {} if self._hcl_report is None else {"hcl_report": b64url_encode(self._hcl_report)}
        return json.dumps(
            {
                **azure,
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
        key, _ = (
            tpm_client.create_primary(transport)
            if self._template is None
            else tpm_client.create_primary(transport, self._template)
        )
        try:
            yield key
        finally:
            tpm_client.flush(transport, key)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (OSError, struct.error, IndexError):
        raise UnavailableError("the TPM does not answer", hint="is /dev/tpmrm0 there and ours?") from None


def _one_der(contents: bytes) -> bytes:
    """The certificate in an NV index that may be longer than it."""
    if contents[:2] != b"\x30\x82":
        raise UnavailableError("the TPM's AK certificate is malformed")
    return contents[: 4 + int.from_bytes(contents[2:4], "big")]
