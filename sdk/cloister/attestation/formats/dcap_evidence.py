"""What TDX and SGX evidence have in common: the way from a quote to Intel's root and TCB status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.authenticate import Support
from cloister.attestation.certificates import check_revocation, load_endorsements, verify_path
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats.dcap import Quote, pck_leaf
from cloister.attestation.formats.dcap_collateral import Collateral, PlatformTcb, TdxModule
from cloister.attestation.roots import anchors
from cloister.errors import EvidenceError

__all__ = ["authenticate_quote"]


def authenticate_quote(
    quote: Quote,
    support: Support,
    *,
    format: Format,  # noqa: A002 (RATS word)
    claims: Mapping[str, Any],
    report_data: bytes,
    debug: bool,
    module: TdxModule | None,
    at: datetime,
) -> AuthenticEvidence:
    """Authenticate a parsed quote, and evaluate its TCB if there is collateral.

    Raises:
        EvidenceError: The quote or the collateral is not genuine, or the TCB is revoked.
    """
    # (1) The PCK certificate leads to Intel's root at this time.
    trusted = anchors("intel", support.trust_anchors)
    endorsements = load_endorsements(support.endorsements)
    pck = pck_leaf(quote, endorsements.certificates)
    untrusted = (*quote.embedded_chain[1:], *endorsements.certificates)
    path = verify_path(pck, untrusted, trusted.certificates, at=at, what="PCK certificate")
    embedded = {certificate.public_bytes(Encoding.DER) for certificate in quote.embedded_chain}
    if not embedded <= {certificate.public_bytes(Encoding.DER) for certificate in path.chain}:
        raise EvidenceError("PCK certificate chain: a certificate is not on the path (step: authenticate)")
    # (2) Platform, quoting enclave, attestation key and body are linked.
    quote.verify(pck)
    platform = PlatformTcb.parse(pck)
    checks = [
        "certificate path of the PCK to the Intel root",
        "signature of the quoting enclave's report",
        "attestation key bound by the quoting enclave",
        "signature of the quote",
    ]
    not_checked: list[str] = []
    outcome: dict[str, Any] = {}
    not_before, not_after = path.not_before, path.not_after
    # (3) Revocation and TCB status, from collateral.
    crls = endorsements.crls
    if support.collateral is not None:
        tee = "TDX" if module is not None else "SGX"
        collateral = Collateral.authenticate(support.collateral, trusted.certificates, tee=tee, at=at)
        result = collateral.evaluate(platform, quote.qe_report, module)
        crls = (*collateral.crls, *crls)
        outcome = {
            "tcb_status": result.status,
            "advisories": list(result.advisories),
            "tcb_date": result.tcb_date,
        }
        not_before, not_after = max(not_before, result.not_before), min(not_after, result.not_after)
        checks += ["signatures of TCB info and QE identity", "quoting enclave identity", "TCB status"]
    else:
        not_checked += [
            "tcb_status: no collateral was given, so vulnerable platforms pass",
            "quoting enclave identity: no collateral was given",
        ]
    if check_revocation(path.chain, crls, at=at):
        checks.append("revocation")
    elif support.collateral is not None:
        raise EvidenceError("revocation: the collateral lacks a list for the PCK (step: collateral)")
    else:
        not_checked.append("revocation: no list was given for every Intel certificate")
    return AuthenticEvidence(
        format=format,
        environment=trusted.environment,
        claims={
            **claims,
            "fmspc": platform.fmspc,
            "pce_svn": platform.pce_svn,
            "pck_tcb_components": list(platform.components),
            "qe_svn": quote.qe_report.isv_svn,
            **outcome,
        },
        binding={"report_data": (report_data,)},
        debug=debug,
        not_before=not_before,
        not_after=not_after,
        checks=tuple(checks),
        not_checked=tuple(not_checked),
    )
