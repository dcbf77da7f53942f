"""How public tools write a TPM quote down; each layout is read into the one container.

vaportpm (lockboot/vaportpm) for Google Cloud and NitroTPM, and confidential-containers/trustee: a bare quote,
a quote with its public key, and Azure's evidence in its versions 0 to 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from cloister.attestation.certificates import load_certificates
from cloister.attestation.encodings import any_base64, lower_hex
from cloister.attestation.formats.tpm_container import Container, pcr_values
from cloister.attestation.formats.tpm_quote import ECDSA, RSASSA, Signature
from cloister.errors import EvidenceError

__all__ = ["read_layout"]

_SHA256: Final = 0x000B
_QUOTE_MEMBERS: Final = {"signature", "message", "pcrs"}
_AZURE_MEMBERS: Final = ({"hcl_report", "vcek"}, {"hcl_report", "td_quote"})
_AZURE_VERSIONS: Final = (0, 1, 2)


def read_layout(members: Mapping[str, Any]) -> Container:
    """Read the layout that these members show.

    Raises:
        ValueError: It is none that is known.
    """
    if members.keys() == {"platform", "evidence"}:
        members = members["evidence"]
    if "attestation" in members:
        return _vaportpm(members)
    if members.keys() == _QUOTE_MEMBERS:
        return _quote(members)
    if members.keys() == {"ak_public", "tpm_quote"}:
        return _quote_with_key(members)
    return _azure(members)


def _vaportpm(members: Mapping[str, Any]) -> Container:
    """P-256 key, DER signature; the platform is Google Cloud or NitroTPM."""
    match members:
        case {
            "nonce": str() as nonce,
            "pcrs": {"sha256": {**values}, **other_banks} | {"sha384": {**values}, **other_banks},
            "ak_pubkeys": {"ecc_p256": {"x": str() as x, "y": str() as y, **more}, **other_keys},
            "attestation": {
                "tpm": {
                    "ecc_p256": {"attest_data": str() as message, "signature": str() as signature, **extra}
                },
                **platform,
            },
            **rest,
        } if not any((other_banks, more, other_keys, extra, rest)):
            pass
        case _:
            raise ValueError
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(lower_hex(x), "big"), int.from_bytes(lower_hex(y), "big"), ec.SECP256R1()
    )
    match platform:
        case {"gcp": {"ak_cert_chain": str() as chain, **more}, **others} if not more and not others:
            certificates = load_certificates([chain.encode()])
            if b"".join(c.public_bytes(Encoding.PEM) for c in certificates) != chain.encode():
                raise EvidenceError("AK certificate chain: not canonical PEM (step: parse)")
            vouchers: dict[str, Any] = {"certificates": tuple(certificates)}
        case {"nitro": {"document": str() as document, **more}, **others} if not more and not others:
            vouchers = {"nitro_document": lower_hex(document)}
        case _:
            raise ValueError
    return Container(
        message=lower_hex(message),
        signature=Signature.of(ECDSA, _SHA256, lower_hex(signature)),
        pcrs=pcr_values(values),
        attestation_key=numbers.public_key(),
        nonce=lower_hex(nonce),
        **vouchers,
    )


def _quote(members: Mapping[str, Any]) -> Container:
    """RSASSA with SHA-256, all PCRs in order."""
    if members.keys() != _QUOTE_MEMBERS:
        raise ValueError
    return Container(
        message=_bytes(members["message"]),
        signature=Signature.of(RSASSA, _SHA256, _bytes(members["signature"])),
        pcrs=_in_order(members["pcrs"]),
    )


def _quote_with_key(members: Mapping[str, Any]) -> Container:
    """The key beside the quote names itself only; something else has to vouch for it."""
    quote = members["tpm_quote"]
    if quote.keys() != _QUOTE_MEMBERS:
        raise ValueError
    return Container(
        message=any_base64(quote["message"]),
        signature=Signature.parse(any_base64(quote["signature"])),
        pcrs=_in_order(quote["pcrs"]),
        attestation_key=load_der_public_key(any_base64(members["ak_public"])),
    )


def _azure(members: Mapping[str, Any]) -> Container:
    """Azure's quote with the HCL report, and the VCEK or TDX quote that vouches for the report."""
    if "version" not in members:  # the first layout: arrays of bytes, and the VCEK in PEM
        renamed = {"quote": "tpm_quote", "report": "hcl_report"}
        members = {"version": 0} | {renamed.get(name, name): value for name, value in members.items()}
    rest = members.keys() - {"version", "tpm_quote"}
    version = members["version"]
    if rest not in _AZURE_MEMBERS or type(version) is not int or version not in _AZURE_VERSIONS:
        raise ValueError
    quote = _quote(members["tpm_quote"])
    vcek = members.get("vcek")
    return Container(
        message=quote.message,
        signature=quote.signature,
        pcrs=quote.pcrs,
        hcl_report=_blob(members["hcl_report"]),
        tdx_quote=_blob(members["td_quote"]) if "td_quote" in members else None,
        endorsements=() if vcek is None else (vcek.encode() if "BEGIN" in vcek else any_base64(vcek),),
    )


def _in_order(values: list[Any]) -> dict[int, bytes]:
    return pcr_values({str(index): _bytes(value).hex() for index, value in enumerate(values)})


def _bytes(value: Any) -> bytes:
    """Lower-case hex, or an array of bytes."""
    return lower_hex(value) if isinstance(value, str) else bytes(value)


def _blob(value: Any) -> bytes:
    """Base64, or an array of bytes."""
    return any_base64(value) if isinstance(value, str) else bytes(value)
