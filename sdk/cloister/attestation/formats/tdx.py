"""Intel TDX quotes, version 4 and 5, with TD reports 1.0 and 1.5."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from cloister.attestation.authenticate import Support
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.dcap import TDX, Quote
from cloister.attestation.formats.dcap_collateral import TdxModule
from cloister.attestation.formats.dcap_evidence import authenticate_quote
from cloister.attestation.reader import Reader
from cloister.errors import EvidenceError

__all__ = ["authenticate"]

# Sizes and names of a TD report's fields, in order (TDX DCAP quoting library API, appendix A.3.2).
_FIELDS: Final = {
    "tee_tcb_svn": 16,
    "mr_seam": 48,
    "mr_signer_seam": 48,
    "seam_attributes": 8,
    "td_attributes": 8,
    "xfam": 8,
    "mr_td": 48,
    "mr_config_id": 48,
    "mr_owner": 48,
    "mr_owner_config": 48,
    "rtmr0": 48,
    "rtmr1": 48,
    "rtmr2": 48,
    "rtmr3": 48,
    "report_data": 64,
}
_FIELDS_1_5: Final = _FIELDS | {"tee_tcb_svn_2": 16, "mr_service_td": 48}
_SEPT_VE_DISABLE: Final = 28


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a TDX quote.

    Raises:
        EvidenceError: It is not genuine, or not a TDX quote.
    """
    quote = Quote.parse(raw)
    if quote.tee != TDX:
        raise EvidenceError("tee_type: not a TDX quote (step: parse)", hint="see --format")
    layout = _FIELDS if len(quote.body) == sum(_FIELDS.values()) else _FIELDS_1_5
    reader = Reader(quote.body, "TD report")
    fields = {name: reader.take(size) for name, size in layout.items()}
    reader.finish()
    attributes = fields["td_attributes"]
    claims: dict[str, Any] = {name: value.hex() for name, value in fields.items()}
    claims |= {
        "quote_version": quote.version,
        "sept_ve_disable": bool(int.from_bytes(attributes, "little") >> _SEPT_VE_DISABLE & 1),
        "tdx_module_svn": fields["tee_tcb_svn"][0],
        "tdx_module_version": fields["tee_tcb_svn"][1],
    }
    return authenticate_quote(
        quote,
        support,
        format=Format.TDX,
        claims=claims,
        report_data=fields["report_data"],
        # The whole first byte is "TD under debug" (TDX module base architecture, ATTRIBUTES.TUD).
        debug=attributes[0] != 0,
        module=TdxModule(
            tee_tcb_svn=fields["tee_tcb_svn"],
            mr_signer_seam=fields["mr_signer_seam"],
            seam_attributes=fields["seam_attributes"],
        ),
        at=at,
    )
