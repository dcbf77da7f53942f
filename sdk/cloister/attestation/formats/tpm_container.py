"""How a TPM quote travels: a JSON object (SPEC.md 4), or a layout of public tools (`tpm_layouts.py`).

No signature covers the container, so it is read strictly: exact members, lower-case hex, canonical
PEM. What it says is either verified against the quote or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from cloister.attestation.certificates import load_certificate, refusing
from cloister.attestation.encodings import lower_hex
from cloister.attestation.formats.tpm_quote import Signature
from cloister.jose import b64url_decode, strict_json

__all__ = ["Container", "pcr_values"]

_MAX_PCR: Final = 24
_MEMBERS: Final = {"v", "message", "signature", "pcrs", "ak_certificates"}
_OPTIONAL: Final = {"hcl_report", "tdx_quote"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A quote, its signature and PCR values, and what may vouch for the attestation key."""

    message: bytes
    signature: Signature
    pcrs: Mapping[int, bytes]
    certificates: tuple[x509.Certificate, ...] = ()
    attestation_key: object | None = None
    nonce: bytes | None = None
    hcl_report: bytes | None = None
    tdx_quote: bytes | None = None
    nitro_document: bytes | None = None
    endorsements: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Container:
        """Read a container of ours, or of a layout that a public tool writes.

        Raises:
            EvidenceError: It is none of them.
        """
        with refusing("TPM evidence"):
            members = strict_json.load_object(raw)
            if "v" in members:
                return _own(members)
            from cloister.attestation.formats.tpm_layouts import read_layout  # noqa: PLC0415 (it needs this class)

            return read_layout(members)


def _own(members: Mapping[str, Any]) -> Container:
    if not _MEMBERS <= members.keys() <= _MEMBERS | _OPTIONAL or members["v"] != 1:
        raise ValueError
    optional: dict[str, Any] = {name: b64url_decode(members[name]) for name in _OPTIONAL & members.keys()}
    return Container(
        message=b64url_decode(members["message"]),
        signature=Signature.parse(b64url_decode(members["signature"])),
        pcrs=pcr_values(members["pcrs"]),
        certificates=tuple(load_certificate(b64url_decode(der)) for der in members["ak_certificates"]),
        **optional,
    )


def pcr_values(values: Mapping[Any, Any]) -> dict[int, bytes]:
    """PCR values by decimal index, in lower-case hex."""
    pcrs = {}
    for name, value in values.items():
        if str(int(name)) != name or not 0 <= int(name) < _MAX_PCR:
            raise ValueError
        pcrs[int(name)] = lower_hex(value)
    return pcrs
