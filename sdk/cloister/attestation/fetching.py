"""Which endorsements and collateral a document needs, and where its vendor publishes them.

Nothing here talks to a network: `get` is an argument. What it returns is as untrusted as any
endorsement, and `authenticate` decides. Sources: AMD 57230 (KDS), Intel PCS API version 4, and for TPMs the
authority information access of the AK certificate (RFC 5280 section 4.2.2.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from cloister.attestation.certificates import load_endorsements, refusing
from cloister.attestation.evidence import Format
from cloister.attestation.formats import azure_hcl
from cloister.attestation.formats.amd_certificates import common_name
from cloister.attestation.formats.dcap import TDX, Quote
from cloister.attestation.formats.dcap_collateral import PlatformTcb
from cloister.attestation.formats.sev_snp import LAYOUTS, REPORT_BYTES, Report
from cloister.attestation.formats.tpm_container import Container
from cloister.errors import ConfigurationError, EvidenceError, UnavailableError

__all__ = ["FETCHED", "Fetched", "Get", "fetch"]

FETCHED: Final = frozenset({Format.SEV_SNP, Format.TDX, Format.SGX, Format.TPM, Format.AZURE_VTPM})
"""The formats whose evidence may lack something that the vendor publishes."""

MAX_ISSUERS: Final = 4

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
    """Fetch what a document needs to be appraised offline.

    Args:
        evidence: The document, unverified.
        format: What it is meant to be.
        get: Fetches one address.
        product: AMD product line, which reports of version 2 do not name; every line is tried without it.

    Raises:
        EvidenceError: The document or a vendor's answer is malformed.
        ConfigurationError: The format needs nothing, or nobody vouches for the key.
        UnavailableError: The vendor does not answer.
    """
    match format:
        case Format.SEV_SNP:
            return _fetch_amd(evidence[:REPORT_BYTES], get, product)
        case Format.TDX | Format.SGX:
            return _fetch_intel(evidence, get)
        case Format.TPM | Format.AZURE_VTPM:
            return _fetch_for_tpm(evidence, get, product)
        case _:
            raise ConfigurationError(f"{format} evidence brings its own certificates; nothing is fetched")


def _fetch_amd(raw: bytes, get: Get, product: str) -> Fetched:
    report = Report.parse(raw)
    named = report.product or product
    if named and named not in LAYOUTS:
        raise ConfigurationError(
            "the product line is not known", hint=f"pass one of {', '.join(LAYOUTS)}, or none"
        )
    if named:
        return _fetch_amd_line(report, get, named)
    refusal = UnavailableError("AMD KDS knows this chip in no product line")
    for line in LAYOUTS:
        try:
            found = _fetch_amd_line(report, get, line)
            # KDS certifies any TCB it is asked for, so only the signature tells the lines apart.
            report.verify(_chip_certificate(found, report.signer).public_key())
        except UnavailableError as error:
            refusal = error
        except EvidenceError:
            continue
        else:
            return found
    raise refusal


def _chip_certificate(found: Fetched, name: str) -> x509.Certificate:
    for certificate in load_endorsements(found.endorsements).certificates:
        if common_name(certificate) == name:
            return certificate
    raise EvidenceError("chip certificate: not among what was fetched")


def _fetch_amd_line(report: Report, get: Get, line: str) -> Fetched:
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


def _fetch_for_tpm(evidence: bytes, get: Get, product: str) -> Fetched:
    container = Container.parse(evidence)
    if container.hcl_report is not None:
        report = azure_hcl.HclReport.parse(container.hcl_report)
        if report.kind == azure_hcl.SEV_SNP:
            return _fetch_amd(report.hardware_report, get, product)
        if container.tdx_quote is not None:
            return _fetch_intel(container.tdx_quote, get)
    if not container.certificates:
        raise ConfigurationError(
            "no certificate names this TPM's attestation key, so there is nothing to fetch",
            hint="pin the key as a trust anchor",
        )
    fetched: list[bytes] = []
    certificate = container.certificates[0]
    for _ in range(MAX_ISSUERS):
        fetched += _revocation_lists(certificate, get)
        address = _issuer_address(certificate)
        if address is None or certificate.issuer == certificate.subject:
            break
        body = get(address)[0]
        certificate = load_endorsements([body]).certificates[0]
        fetched.append(body)
    return Fetched(endorsements=tuple(fetched))


def _issuer_address(certificate: x509.Certificate) -> str | None:
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.AuthorityInformationAccess):
            for access in extension.value:
                if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
                    return str(access.access_location.value)
    return None


def _revocation_lists(certificate: x509.Certificate, get: Get) -> list[bytes]:
    """The lists a certificate points to, where they can be had; appraisal says which were missing."""
    lists: list[bytes] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.CRLDistributionPoints):
            for point in extension.value:
                for name in point.full_name or ():
                    try:
                        lists.append(get(str(name.value))[0])
                    except UnavailableError:
                        continue
    return lists


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
