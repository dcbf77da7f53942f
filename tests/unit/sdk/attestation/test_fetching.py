"""What is fetched for a document is what its vendor publishes, and makes it verify."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote as percent

import pytest

from cloister.attestation import Format, fetching
from cloister.errors import ConfigurationError, EvidenceError, UnavailableError
from support import evidence_builders as make
from support.evidence_vectors import BY_NAME, read

TDX = BY_NAME["tdx/v4_with_collateral.quote.bin"]
SNP = BY_NAME["snp/v5_genoa_vcek.report.bin"]


class Vendor:
    """Answers by the start of the address, and remembers what was asked."""

    def __init__(self, answers: Mapping[str, tuple[bytes, Mapping[str, str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, address: str) -> tuple[bytes, Mapping[str, str]]:
        self.asked.append(address)
        return next(answer for start, answer in self.answers.items() if address.startswith(start))


def intel() -> Vendor:
    stored = json.loads(read(TDX.collateral))

    def body(name: str, member: str) -> bytes:
        return f'{{"{member}":{stored[name]},"signature":"{stored[f"{name}_signature"]}"}}'.encode()

    base = fetching.PCS
    return Vendor(
        {
            f"{base}/tdx/certification/v4/tcb": (
                body("tcb_info", "tcbInfo"),
                {"tcb-info-issuer-chain": percent(stored["tcb_info_issuer_chain"])},
            ),
            f"{base}/tdx/certification/v4/qe/identity": (
                body("qe_identity", "enclaveIdentity"),
                {"sgx-enclave-identity-issuer-chain": percent(stored["qe_identity_issuer_chain"])},
            ),
            f"{base}/sgx/certification/v4/pckcrl": (
                bytes.fromhex(stored["pck_crl"]),
                {"sgx-pck-crl-issuer-chain": percent(stored["pck_crl_issuer_chain"])},
            ),
            fetching.INTEL_ROOT_CRL: (bytes.fromhex(stored["root_ca_crl"]), {}),
        }
    )


def test_fetched_collateral_makes_a_quote_verify() -> None:
    vendor = intel()
    fetched = fetching.fetch(read(TDX.name), format=Format.TDX, get=vendor)
    assert TDX.authenticate(collateral=fetched.collateral).claims["tcb_status"] == "UpToDate"
    assert f"{fetching.PCS}/tdx/certification/v4/tcb?fmspc=b0c06f000000" in vendor.asked
    assert f"{fetching.PCS}/sgx/certification/v4/pckcrl?ca=platform&encoding=der" in vendor.asked


def test_a_malformed_answer_is_refused() -> None:
    vendor = Vendor(dict(intel().answers) | {f"{fetching.PCS}/tdx/certification/v4/tcb": (b"{}", {})})
    with pytest.raises(EvidenceError):
        fetching.fetch(read(TDX.name), format=Format.TDX, get=vendor)


def test_the_vcek_of_the_reported_tcb_is_asked_for() -> None:
    certificate, chain = read(SNP.endorsements[0]), read("snp/ca/ask_ark_genoa.pem")
    base = f"{fetching.KDS}/vcek/v1/Genoa"
    revoked = b"list"
    vendor = Vendor(
        {f"{base}/cert_chain": (chain, {}), f"{base}/crl": (revoked, {}), f"{base}/": (certificate, {})}
    )
    fetched = fetching.fetch(read(SNP.name), format=Format.SEV_SNP, get=vendor)
    assert fetched.endorsements == (certificate, chain, revoked)
    assert vendor.asked[-1].endswith("?blSPL=10&teeSPL=00&snpSPL=25&ucodeSPL=84")


def test_turin_chips_are_named_by_eight_bytes_and_have_an_fmc() -> None:
    issuer = make.AmdIssuer("Turin")
    vendor = Vendor({fetching.KDS: (b"x", {})})
    fetching.fetch(issuer.report(), format=Format.SEV_SNP, get=vendor)
    expected = f"{'11' * 8}?fmcSPL=01&blSPL=02&teeSPL=00&snpSPL=04&ucodeSPL=72"
    assert vendor.asked[-1] == f"{fetching.KDS}/vcek/v1/Turin/{expected}"


def test_every_product_line_is_tried_for_a_version_2_report() -> None:
    raw, certificate = read("snp/v2_milan_vcek.report.bin"), read("snp/v2_milan_vcek.cert.der")
    genoa = read(SNP.endorsements[0])
    base = f"{fetching.KDS}/vcek/v1"
    # KDS answers for another line too; only the certificate whose key signed the report is taken.
    answers = {f"{base}/Milan": (genoa, {}), f"{base}/Genoa": (certificate, {}), base: (genoa, {})}
    vendor = Vendor(answers)
    fetched = fetching.fetch(raw, format=Format.SEV_SNP, get=vendor)
    assert fetched.endorsements[0] == certificate
    fetching.fetch(raw, format=Format.SEV_SNP, get=vendor, product="Turin")
    assert "/vcek/v1/Turin/" in vendor.asked[-1]
    vendor.answers = {base: (genoa, {})}
    with pytest.raises(UnavailableError, match="no product line"):
        fetching.fetch(raw, format=Format.SEV_SNP, get=vendor)


def test_an_unknown_product_line_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="product line"):
        fetching.fetch(
            read("snp/v2_milan_vcek.report.bin"), format=Format.SEV_SNP, get=intel(), product="Rome"
        )


def test_a_vlek_is_not_asked_for() -> None:
    vendor = Vendor({fetching.KDS: (b"x", {})})
    fetching.fetch(read("snp/v3_milan_vlek_aws.report.bin"), format=Format.SEV_SNP, get=vendor)
    assert vendor.asked == [f"{fetching.KDS}/vlek/v1/Milan/{name}" for name in ("cert_chain", "crl")]


def test_nothing_is_fetched_for_a_nitro_document() -> None:
    with pytest.raises(ConfigurationError):
        fetching.fetch(b"", format=Format.NITRO, get=Vendor({}))
