"""Which endorsements and collateral a document needs, and where its vendor publishes them.

Nothing here talks to a network: `get` is an argument. What it returns is as untrusted as any
endorsement, and `authenticate` decides. Sources: AMD 57230 (KDS), Intel PCS API version 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.certificates import refusing
from cloister.attestation.evidence import Format
from cloister.attestation.formats.dcap import TDX, Quote
from cloister.attestation.formats.dcap_collateral import PlatformTcb
from cloister.attestation.formats.sev_snp import LAYOUTS, REPORT_BYTES, Report
from cloister.errors import ConfigurationError

__all__ = ["Fetched", "Get", "fetch"]

KDS: Final = "https://kdsintf.amd.com"
PCS: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_SPL: Final = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}
_TURIN_ID_BYTES: Final = 8
_SIGNED_BODY: Final = re.compile(
    r'\{"(?:tcbInfo|enclaveIdentity)":(\{.*\}),"signature":"([0-9a-fA-F]{128})"\}', re.DOTALL
)

Get = Callable[[str], tuple[bytes, Mapping[str, str]]]
"""Fetch an address: body and response headers with names in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched, ready for `authenticate`."""

    endorsements: tuple[bytes, ...] = ()
    collateral: bytes | None = None


def fetch(evidence: bytes, *, format: Format, get: Get, product: str = "") -> Fetched:  # noqa: A002 (RATS word)
    """Fetch what an SEV-SNP report, a TDX quote or an SGX quote needs to be appraised offline.

    Args:
        evidence: The document, unverified.
        format: What it is meant to be.
        get: Fetches one address.
        product: AMD product line, which reports of version 2 do not name.

    Raises:
        EvidenceError: The document or a vendor's answer is malformed.
        ConfigurationError: The format needs nothing, or the product line is missing.
    """
    match format:
        case Format.SEV_SNP:
            return _fetch_amd(evidence, get, product)
        case Format.TDX | Format.SGX:
            return _fetch_intel(evidence, get)
        case _:
            raise ConfigurationError(f"{format} evidence brings its own certificates; nothing is fetched")


def _fetch_amd(evidence: bytes, get: Get, product: str) -> Fetched:
    report = Report.parse(evidence[:REPORT_BYTES])
    line = report.product or product
    if line not in LAYOUTS:
        raise ConfigurationError(
            "the report does not name its product line", hint=f"pass one of {', '.join(LAYOUTS)}"
        )
    kind = report.signer.removeprefix("SEV-").lower()
    base = f"{KDS}/{kind}/v1/{line}"
    chain, revoked = get(f"{base}/cert_chain")[0], get(f"{base}/crl")[0]
    if kind == "vlek":
        # AMD gives VLEKs to cloud providers only; they come in the certificate table.
        return Fetched(endorsements=(chain, revoked))
    chip_id = report.chip_id[:_TURIN_ID_BYTES] if line == "Turin" else report.chip_id
    levels = "&".join(
        f"{_SPL[part]}={report.reported_tcb[byte]:02d}"
        for part, byte in LAYOUTS[line].items()
        if part in _SPL
    )
    return Fetched(endorsements=(get(f"{base}/{chip_id.hex()}?{levels}")[0], chain, revoked))


def _fetch_intel(evidence: bytes, get: Get) -> Fetched:
    quote = Quote.parse(evidence)
    if not quote.embedded_chain:
        raise ConfigurationError(
            "the quote has no PCK certificate", hint="configure the quote provider to embed it"
        )
    pck = quote.embedded_chain[0]
    platform = PlatformTcb.parse(pck)
    tee = "tdx" if quote.tee == TDX else "sgx"
    authority = "platform" if "Platform" in pck.issuer.rfc4514_string() else "processor"
    tcb_body, tcb_headers = get(f"{PCS}/{tee}/certification/v4/tcb?fmspc={platform.fmspc}")
    qe_body, qe_headers = get(f"{PCS}/{tee}/certification/v4/qe/identity")
    crl_body, crl_headers = get(f"{PCS}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der")
    root_crl, _ = get(INTEL_ROOT_CRL)
    with refusing("collateral"):
        tcb_info, tcb_signature = _signed(tcb_body)
        qe_identity, qe_signature = _signed(qe_body)
        collateral = {
            "pck_crl_issuer_chain": unquote(crl_headers["sgx-pck-crl-issuer-chain"]),
            "root_ca_crl": root_crl.hex(),
            "pck_crl": crl_body.hex(),
            "tcb_info_issuer_chain": unquote(tcb_headers["tcb-info-issuer-chain"]),
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": unquote(qe_headers["sgx-enclave-identity-issuer-chain"]),
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_signature,
        }
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in quote.embedded_chain)
    return Fetched(endorsements=(chain,), collateral=json.dumps(collateral).encode())


def _signed(body: bytes) -> tuple[str, str]:
    """The signed text, byte for byte, and its signature."""
    match = _SIGNED_BODY.fullmatch(body.decode().strip())
    if match is None:
        raise ValueError
    return match[1], match[2]
