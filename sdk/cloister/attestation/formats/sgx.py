"""Intel SGX quotes: DCAP version 3, and SGX bodies in versions 4 and 5."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cloister.attestation.authenticate import Support
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.dcap import SGX, Quote, SgxReport
from cloister.attestation.formats.dcap_evidence import authenticate_quote
from cloister.errors import EvidenceError

__all__ = ["authenticate"]

_INIT: Final = 0x01
_DEBUG: Final = 0x02


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate an SGX quote.

    Raises:
        EvidenceError: It is not genuine, or not an SGX quote.
    """
    quote = Quote.parse(raw)
    if quote.tee != SGX:
        raise EvidenceError("tee_type: not an SGX quote (step: parse)", hint="see --format")
    report = SgxReport.parse(quote.body)
    if not report.attributes[0] & _INIT:
        raise EvidenceError("attributes: the enclave is not initialised (step: parse)")
    return authenticate_quote(
        quote,
        support,
        format=Format.SGX,
        claims={
            "quote_version": quote.version,
            "mr_enclave": report.mr_enclave.hex(),
            "mr_signer": report.mr_signer.hex(),
            "isv_prod_id": report.isv_prod_id,
            "isv_svn": report.isv_svn,
            "isv_ext_prod_id": report.isv_ext_prod_id.hex(),
            "isv_family_id": report.isv_family_id.hex(),
            "config_id": report.config_id.hex(),
            "config_svn": report.config_svn,
            "attributes": report.attributes.hex(),
            "misc_select": report.misc_select.hex(),
            "cpu_svn": report.cpu_svn.hex(),
            "report_data": report.report_data.hex(),
        },
        report_data=report.report_data,
        debug=bool(report.attributes[0] & _DEBUG),
        module=None,
        at=at,
    )
