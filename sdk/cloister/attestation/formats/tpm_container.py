"""How a TPM quote travels: a JSON object (SPEC.md 4), or one of two layouts that public tools write.

No signature covers the container, so it is read strictly: exact members, lower-case hex, canonical
PEM. What it says is either verified against the quote or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.certificates import load_certificate, load_certificates, refusing
from cloister.attestation.formats.tpm_quote import ECDSA, RSASSA, Signature
from cloister.errors import EvidenceError
from cloister.jose import b64url_decode, strict_json

__all__ = ["Container"]

_SHA256: Final = 0x000B
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

    @classmethod
    def parse(cls, raw: bytes) -> Container:
        """Read a container of any of the three layouts.

        Raises:
            EvidenceError: It is none of them.
        """
        with refusing("TPM evidence"):
            members = strict_json.load_object(raw)
            if "v" in members:
                return _own(members)
            if "attestation" in members:
                return _vaportpm(members)
            return _trustee(members)


def _own(members: Mapping[str, Any]) -> Container:
    if not _MEMBERS <= members.keys() <= _MEMBERS | _OPTIONAL or members["v"] != 1:
        raise ValueError
    optional = {name: b64url_decode(members[name]) for name in _OPTIONAL & members.keys()}
    return Container(
        message=b64url_decode(members["message"]),
        signature=Signature.parse(b64url_decode(members["signature"])),
        pcrs=_pcrs(members["pcrs"]),
        certificates=tuple(load_certificate(b64url_decode(der)) for der in members["ak_certificates"]),
        **optional,
    )


def _vaportpm(members: Mapping[str, Any]) -> Container:
    """The layout of lockboot/vaportpm for Google Cloud: P-256 key, DER signature, PEM chain."""
    match members:
        case {
            "nonce": str() as nonce,
            "pcrs": {"sha256": {**pcrs}, **other_banks},
            "ak_pubkeys": {"ecc_p256": {"x": str() as x, "y": str() as y, **more}, **other_keys},
            "attestation": {
                "tpm": {
                    "ecc_p256": {"attest_data": str() as message, "signature": str() as signature, **extra}
                },
                "gcp": {"ak_cert_chain": str() as chain, **other_chains},
                **other_platforms,
            },
            **rest,
        } if not any((other_banks, more, other_keys, extra, other_chains, other_platforms, rest)):
            pass
        case _:
            raise ValueError
    certificates = load_certificates([chain.encode()])
    if b"".join(c.public_bytes(Encoding.PEM) for c in certificates) != chain.encode():
        raise EvidenceError("AK certificate chain: not canonical PEM (step: parse)")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(_hex(x), "big"), int.from_bytes(_hex(y), "big"), ec.SECP256R1()
    )
    return Container(
        message=_hex(message),
        signature=Signature.of(ECDSA, _SHA256, _hex(signature)),
        pcrs=_pcrs(pcrs),
        certificates=tuple(certificates),
        attestation_key=numbers.public_key(),
        nonce=_hex(nonce),
    )


def _trustee(members: Mapping[str, Any]) -> Container:
    """The layout of confidential-containers for Azure: RSASSA with SHA-256, all PCRs in order."""
    if members.keys() != {"signature", "message", "pcrs"}:
        raise ValueError
    return Container(
        message=_hex(members["message"]),
        signature=Signature.of(RSASSA, _SHA256, _hex(members["signature"])),
        pcrs=_pcrs({str(index): value for index, value in enumerate(members["pcrs"])}),
    )


def _pcrs(values: Mapping[Any, Any]) -> dict[int, bytes]:
    pcrs = {}
    for name, value in values.items():
        if str(int(name)) != name or not 0 <= int(name) < _MAX_PCR:
            raise ValueError
        pcrs[int(name)] = _hex(value)
    return pcrs


def _hex(text: str) -> bytes:
    value = bytes.fromhex(text)
    if value.hex() != text:
        raise ValueError
    return value
