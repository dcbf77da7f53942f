"""Every real document gets the verdict its source states, at its own time and today."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest

from cloister import attestation
from cloister.attestation import Format
from cloister.errors import AppraisalError, EvidenceError
from support.evidence_vectors import BY_NAME, DOCUMENTS, FOLDER, TODAY, Document, read

BY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
MANIFEST = json.loads(read("MANIFEST.json"))["items"]


@pytest.mark.parametrize("record", MANIFEST, ids=lambda record: record["file"])
def test_the_vectors_are_the_ones_that_were_collected(record: dict[str, str]) -> None:
    assert hashlib.sha256(read(record["file"])).hexdigest() == record["sha256"]


def test_every_vector_that_is_evidence_is_tried() -> None:
    suffixes = {
        ".cose",
        ".report.bin",
        ".quote.bin",
        ".jwt",
        "quote.json",
        "gcp-amd.json",
        "evidence_v2.json",
        "nitro.json",
    }
    found = {
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        if any(path.name.endswith(suffix) for suffix in suffixes)
    }
    refused = {"nitro/x_2022-11-09_bad_signature.cose", "nitro/x_2024-12-13_untrusted_root.cose"}
    assert found == set(BY_NAME) | refused


@BY_DOCUMENT
def test_a_genuine_document_is_accepted_at_its_time(document: Document) -> None:
    evidence = document.authenticate()
    assert evidence.environment == ("test" if document.trust_anchors else "hardware")
    assert evidence.debug is document.debug
    for name, value in document.claims.items():
        assert evidence.claims[name] == value, name


@BY_DOCUMENT
def test_a_document_is_accepted_today_only_if_it_still_lives(document: Document) -> None:
    if document.alive:
        document.authenticate(at=TODAY)
    else:
        with pytest.raises(EvidenceError, match=r"expired|stale"):
            document.authenticate(at=TODAY)


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if not document.trust_anchors],  # a pinned key has no start
    ids=lambda document: document.name,
)
def test_a_document_is_refused_before_it_was_made(document: Document) -> None:
    with pytest.raises(EvidenceError):
        document.authenticate(at=document.authenticate().not_before - timedelta(days=1))


@BY_DOCUMENT
def test_debug_is_refused_without_a_policy_unless_allowed(document: Document) -> None:
    evidence = document.authenticate()
    if document.debug:
        with pytest.raises(AppraisalError, match="debug"):
            attestation.appraise_freshness(evidence, nonce=None, allow_debug=False, at=document.at)
    attestation.appraise_freshness(
        evidence, nonce=None, allow_debug=document.debug, at=document.at + timedelta(seconds=1)
    )


@BY_DOCUMENT
def test_a_document_is_refused_as_any_other_format(document: Document) -> None:
    for other in Format:
        if other is document.format or {other, document.format} == {Format.TPM, Format.AZURE_VTPM}:
            continue  # Azure's evidence is a TPM's too, and a TPM's is Azure's only with an HCL report
        with pytest.raises(EvidenceError):
            document.authenticate(format=other)


@pytest.mark.parametrize(
    ("name", "time_of"),
    [
        ("x_2022-11-09_bad_signature", "nitro/g_2022-11-09_prod.cose"),
        ("x_2024-12-13_untrusted_root", "nitro/g_2024-12-13_prod_pubkey.cose"),
    ],
)
def test_an_upstream_negative_is_refused(name: str, time_of: str) -> None:
    with pytest.raises(EvidenceError, match=r"signature|trust anchor"):
        BY_NAME[time_of].authenticate(read(f"nitro/{name}.cose"))


def test_a_chip_certificate_that_amd_did_not_sign_is_refused() -> None:
    with pytest.raises(EvidenceError, match="not signed"):
        BY_NAME["snp/v2_milan_vcek.report.bin"].authenticate(
            endorsements=[read("snp/x_vcek_invalid_new.der")]
        )


NONCES = {
    "nitro/g_2022-11-09_prod.cose": "c678c86135de539d183acff58886d98dfb9823041af9f934bf909ac0f8d96245",
    "snp/v5_genoa_vcek.report.bin": "8100555af0ad8e7525be6dffeed0af83e30bbacbf03b76e175e6894d1ed057ce",
    "sgx/v3_with_collateral.quote.bin": b"Hello, world!".hex(),
    "tpm/vaportpm_gcp-amd.json": "8a543108a653b4a1162232744cc9b945017a449dea4fbb0ca62f42d3ef145562",
    "tpm/az_snp_quote.json": b"challenge".hex(),
    "tpm/az_snp_evidence_v2.json": "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9a"
    "a398f647caa2338748cd0fd9f5f819ef",
    "tpm/vaportpm_nitro.json": "8ec265e6a21b13c946c70ee90b604c4aa7a742d4a334f1f2b62e6088a002cc82",
    "nitro/g_2026-02-02_nitrotpm.cose": "8ec265e6a21b13c946c70ee90b604c4aa7a742d4a334f1f2b62e6088a002cc82",
    "maa/azurevm_2023_weu.jwt": b"ADE0101".hex(),
}


@pytest.mark.parametrize("name", NONCES)
def test_the_nonce_is_found_byte_for_byte(name: str) -> None:
    document = BY_NAME[name]
    evidence, nonce = document.authenticate(), bytes.fromhex(NONCES[name])
    attestation.appraise_freshness(evidence, nonce=nonce, allow_debug=False, at=document.at)
    for wrong in (nonce[:-1], nonce + b"x", nonce[:-1] + bytes([nonce[-1] ^ 1]), b""):
        with pytest.raises(EvidenceError, match=r"nonce|report_data|extra_data"):
            attestation.appraise_freshness(evidence, nonce=wrong, allow_debug=False, at=document.at)


def test_a_tpm_quote_without_azures_report_is_not_azures() -> None:
    with pytest.raises(EvidenceError):
        BY_NAME["tpm/vaportpm_gcp-amd.json"].authenticate(format=Format.AZURE_VTPM)


def test_a_document_without_nonce_answers_no_nonce() -> None:
    document = BY_NAME["nitro/g_2021-03-17_prod.cose"]
    with pytest.raises(EvidenceError, match="carries none"):
        attestation.appraise_freshness(document.authenticate(), nonce=b"x", allow_debug=False, at=document.at)


def test_endorsements_are_taken_as_pem_or_der_in_any_order() -> None:
    document = BY_NAME["snp/v5_genoa_vcek.report.bin"]
    pem, der = read("snp/ca/ask_ark_genoa.pem"), read("snp/v5_genoa_vcek.cert.der")
    for endorsements in ([pem, der], [der, pem], [der]):
        assert document.authenticate(endorsements=endorsements).environment == "hardware"
    with pytest.raises(EvidenceError, match="no SEV-VCEK"):
        document.authenticate(endorsements=[pem])


def test_a_caller_supplied_anchor_yields_test_even_if_it_is_the_vendors() -> None:
    document = BY_NAME["nitro/g_2022-11-09_prod.cose"]
    evidence = document.authenticate(trust_anchors=[read("nitro/aws_nitro_root_g1.pem")])
    assert evidence.environment == "test"


def test_an_anchor_of_another_vendor_is_refused() -> None:
    for document in DOCUMENTS:
        if document.format in {Format.NITRO, Format.SEV_SNP}:
            with pytest.raises(EvidenceError):
                document.authenticate(trust_anchors=[read("tdx/intel_sgx_root_ca.der")])


def test_collateral_of_another_platform_is_refused() -> None:
    with pytest.raises(EvidenceError, match="another platform"):
        BY_NAME["tdx/v4_with_collateral.quote.bin"].authenticate(raw=read("tdx/v4_spr.quote.bin"))


def test_collateral_of_another_tee_is_refused() -> None:
    with pytest.raises(EvidenceError):
        BY_NAME["tdx/v4_with_collateral.quote.bin"].authenticate(
            collateral=read("sgx/v3_with_collateral.collateral.json")
        )
