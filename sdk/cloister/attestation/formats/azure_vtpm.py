"""Azure confidential VMs: a vTPM quote, whose key SEV-SNP or TDX evidence vouches for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cloister.attestation.authenticate import Support
from cloister.attestation.certificates import load_endorsements
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.formats import azure_hcl, sev_snp, tdx
from cloister.attestation.formats.tpm import Voucher, authenticate_container
from cloister.attestation.formats.tpm_container import Container
from cloister.attestation.roots import anchors
from cloister.errors import EvidenceError

__all__ = ["authenticate", "hardware_voucher"]


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a quote with the hardware evidence that vouches for its key.

    Raises:
        EvidenceError: One of them is not genuine, or they do not belong together.
    """
    container = Container.parse(raw)
    voucher = hardware_voucher(container, support, at=at)
    return authenticate_container(container, voucher, format=Format.AZURE_VTPM)


def hardware_voucher(container: Container, support: Support, *, at: datetime) -> Voucher:
    """The key that the HCL report names, once hardware evidence vouches for the report.

    Raises:
        EvidenceError: There is no such report, or its hardware evidence is not genuine.
    """
    # (1) The one HCL report, in the container or among the endorsements.
    endorsements = (*support.endorsements, *container.endorsements)
    loaded = load_endorsements(endorsements)
    blobs = [blob for blob in loaded.other if blob.startswith(azure_hcl.MAGIC)]
    if container.hcl_report is not None:
        blobs.append(container.hcl_report)
    if len(blobs) != 1:
        raise EvidenceError(
            "HCL report: exactly one is needed (step: authenticate)",
            hint="it is in the evidence, or passed with --endorsements",
        )
    report = azure_hcl.HclReport.parse(blobs[0])
    # (2) Genuine hardware evidence
    if report.kind == azure_hcl.SEV_SNP:
        certificates = tuple(item for item in endorsements if item not in blobs)
        trusted = anchors("amd", support.trust_anchors)
        hardware = sev_snp.authenticate_report(report.hardware_report, certificates, trusted, at=at)
        # Azure's paravisor runs at VMPL 0; a report from below it is not the paravisor's.
        if hardware.claims["vmpl"] != 0:
            raise EvidenceError("vmpl: the report is not the paravisor's (step: authenticate)")
    else:
        quotes = [blob for blob in loaded.other if blob not in blobs]
        if container.tdx_quote is not None:
            quotes.append(container.tdx_quote)
        if len(quotes) != 1:
            raise EvidenceError(
                "TDX quote: exactly one is needed (step: authenticate)",
                hint="it comes from Azure's IMDS; it is in the evidence, or passed with --endorsements",
            )
        others = tuple(item for item in endorsements if item not in blobs and item not in quotes)
        hardware = tdx.authenticate(quotes[0], replace(support, endorsements=others), at=at)
    # (3) that speaks of this report.
    (report_data,) = hardware.binding["report_data"]
    report.require_vouched_for(report_data)
    return Voucher(
        key=report.attestation_key,
        environment=hardware.environment,
        claims={
            "ak": f"hcl-{hardware.format}",
            "hardware": dict(hardware.claims),
            "vm_configuration": dict(report.vm_configuration),
            **{
                name: hardware.claims[name]
                for name in ("tcb_status", "advisories")
                if name in hardware.claims
            },
        },
        checks=(*hardware.checks, "attestation key named by the hardware evidence"),
        not_checked=(
            *hardware.not_checked,
            "paravisor: only a policy that names hardware.measurement tells Azure's from anybody's",
        ),
        not_before=hardware.not_before,
        not_after=hardware.not_after,
        debug=hardware.debug,
    )
