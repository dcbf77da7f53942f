"""Evidence that is well made, and wrong in one thing: chains, algorithms, layouts, identities."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister import attestation
from cloister.attestation import AuthenticEvidence, Format
from cloister.attestation.formats.dcap import Quote
from cloister.attestation.formats.dcap_collateral import Collateral, PlatformTcb, TdxModule
from cloister.attestation.roots import anchors
from cloister.errors import AppraisalError, EvidenceError
from support import evidence_builders as make
from support.evidence_builders import AT, AmdIssuer, NitroIssuer, TokenIssuer, der
from support.evidence_vectors import BY_NAME, read

# --- Nitro ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nitro() -> NitroIssuer:
    return NitroIssuer()


def check_nitro(
    issuer: NitroIssuer, document: bytes, format_: Format = Format.NITRO, **changes: Any
) -> AuthenticEvidence:
    arguments: dict[str, Any] = {"at": AT, "trust_anchors": [der(issuer.root)]} | changes
    return attestation.authenticate(document, format=format_, **arguments)


def test_a_document_under_a_caller_supplied_root_is_test_evidence(nitro: NitroIssuer) -> None:
    evidence = check_nitro(nitro, nitro.document())
    assert evidence.environment == "test"
    assert not evidence.debug


def test_a_document_under_a_foreign_root_of_the_same_name_is_refused(nitro: NitroIssuer) -> None:
    with pytest.raises(EvidenceError, match="trust anchor"):
        check_nitro(nitro, nitro.document(), trust_anchors=None)
    with pytest.raises(EvidenceError, match="trust anchor"):
        check_nitro(nitro, NitroIssuer().document())


@pytest.mark.parametrize(
    "intermediate",
    [
        {"usage": make.key_usage(signs=True)},
        {"authority": False, "usage": make.key_usage(issues=True)},
        {"life": (AT - timedelta(days=2), AT - timedelta(days=1))},
        {"bare": True},
        {"extensions": {"1.2.3.4": b"\x05\x00"}, "critical": "1.2.3.4"},
    ],
    ids=["wrong key usage", "not a CA", "expired", "no constraints", "unknown critical extension"],
)
def test_an_intermediate_that_may_not_issue_is_refused(intermediate: dict[str, Any]) -> None:
    issuer = NitroIssuer(**intermediate)
    with pytest.raises(EvidenceError, match="trust anchor"):
        check_nitro(issuer, issuer.document())


@pytest.mark.parametrize(
    "leaf",
    [
        {"usage": make.key_usage(issues=True)},
        {"authority": True, "usage": make.key_usage(signs=True)},
        {"life": (AT - timedelta(days=2), AT - timedelta(days=1))},
        {"extensions": {"1.2.3.4": b"\x05\x00"}, "critical": "1.2.3.4"},
    ],
    ids=["wrong key usage", "a CA", "expired", "unknown critical extension"],
)
def test_a_leaf_that_may_not_sign_is_refused(nitro: NitroIssuer, leaf: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        check_nitro(nitro, nitro.document(leaf=leaf))


def test_a_path_that_was_valid_is_refused_once_it_is_not(nitro: NitroIssuer) -> None:
    """What is remembered of a path is never its validity at another time, nor under another root."""
    document, root = nitro.document(), der(nitro.root)
    arguments: dict[str, Any] = {"format": Format.NITRO, "trust_anchors": [root]}
    attestation.authenticate(document, at=AT, **arguments)
    attestation.authenticate(document, at=AT, **arguments)
    for at in (make.LIFE[0] - timedelta(seconds=1), make.LIFE[1] + timedelta(seconds=1)):
        with pytest.raises(EvidenceError):
            attestation.authenticate(document, at=at, **arguments)
    with pytest.raises(EvidenceError):
        attestation.authenticate(
            document, at=AT, format=Format.NITRO, trust_anchors=[der(make.NitroIssuer().root)]
        )


def test_a_missing_intermediate_is_refused(nitro: NitroIssuer) -> None:
    with pytest.raises(EvidenceError, match="trust anchor"):
        check_nitro(nitro, nitro.document(cabundle=[der(nitro.root)]))


@pytest.mark.parametrize(
    "changes",
    [
        {"protected": {1: -1}},
        {"protected": {1: -7}},
        {"protected": {}},
        {"protected": {1: -35, 4: b"kid"}},
        {"unprotected": {4: b"kid"}},
        {"curve": ec.SECP256R1()},
        {"members": {"digest": "SHA256"}},
        {"members": {"pcrs": ..., "nitrotpm_pcrs": {0: b"\1" * 48}}},
        {"members": {"pcrs": {0: b"\1" * 32}}},
        {"members": {"pcrs": {32: b"\1" * 48}}},
        {"members": {"pcrs": {}}},
        {"members": {"module_id": ""}},
        {"members": {"timestamp": -1}},
        {"members": {"timestamp": 2**70}},
        {"members": {"timestamp": int((AT - timedelta(days=1)).timestamp() * 1000)}},
        {"members": {"nonce": b"x" * 1025}},
        {"members": {"user_data": "text"}},
        {"members": {"surprise": 1}},
        {"members": {"certificate": ...}},
        {"cabundle": [b"not a certificate"]},
    ],
)
def test_a_well_signed_document_of_the_wrong_form_is_refused(
    nitro: NitroIssuer, changes: dict[str, Any]
) -> None:
    with pytest.raises(EvidenceError):
        check_nitro(nitro, nitro.document(**changes))


def test_an_unsigned_document_of_an_emulator_is_refused(nitro: NitroIssuer) -> None:
    header, unprotected, payload, _ = cbor2.loads(nitro.document(protected={1: -1}))
    with pytest.raises(EvidenceError, match="ES384"):
        check_nitro(nitro, cbor2.dumps([header, unprotected, payload, bytes(96)]))


def test_duplicate_members_are_refused(nitro: NitroIssuer) -> None:
    header, unprotected, payload, signature = cbor2.loads(nitro.document())
    doubled = bytes([payload[0] + 1]) + payload[1:] + cbor2.dumps("digest") + cbor2.dumps("SHA384")
    with pytest.raises(EvidenceError, match="CBOR"):
        check_nitro(nitro, cbor2.dumps([header, unprotected, doubled, signature]))


def test_a_field_of_one_kibibyte_is_read(nitro: NitroIssuer) -> None:
    evidence = check_nitro(nitro, nitro.document(members={"user_data": b"u" * 1024}))
    assert evidence.binding["user_data"] == (b"u" * 1024,)


@pytest.mark.parametrize("pcr", [0, 1, 2])
def test_a_zero_boot_measurement_is_debug(nitro: NitroIssuer, pcr: int) -> None:
    pcrs = {index: bytes([index + 1]) * 48 for index in range(16)} | {pcr: bytes(48)}
    assert check_nitro(nitro, nitro.document(members={"pcrs": pcrs})).debug


def test_an_absent_boot_measurement_is_debug(nitro: NitroIssuer) -> None:
    assert check_nitro(nitro, nitro.document(members={"pcrs": {3: b"\1" * 48}})).debug


def test_a_nitrotpm_document_is_never_an_enclave(nitro: NitroIssuer) -> None:
    document = nitro.document(members={"pcrs": ..., "nitrotpm_pcrs": {4: b"\1" * 48}})
    with pytest.raises(EvidenceError, match="pcrs"):
        check_nitro(nitro, document)
    evidence = check_nitro(nitro, document, Format.NITRO_TPM)
    assert evidence.format is Format.NITRO_TPM
    assert any("not an enclave" in line for line in evidence.not_checked)
    with pytest.raises(EvidenceError):
        check_nitro(nitro, nitro.document(), Format.NITRO_TPM)


def test_a_revoked_certificate_is_refused_and_a_stale_list_too(nitro: NitroIssuer) -> None:
    root = (nitro.root, nitro.root_key)
    middle = (nitro.middle, nitro.middle_key)
    lists = [make.crl(root), make.crl(middle)]
    evidence = check_nitro(nitro, nitro.document(), endorsements=lists)
    assert "revocation" in evidence.checks
    assert not evidence.not_checked
    with pytest.raises(EvidenceError, match="revoked"):
        check_nitro(nitro, nitro.document(), endorsements=[make.crl(root, nitro.middle)])
    stale = make.crl(root, next_update=AT - timedelta(minutes=1))
    with pytest.raises(EvidenceError, match="stale"):
        check_nitro(nitro, nitro.document(), endorsements=[stale])
    forged = make.crl((nitro.root, nitro.middle_key))
    with pytest.raises(EvidenceError, match="not signed"):
        check_nitro(nitro, nitro.document(), endorsements=[forged])


def test_a_development_root_is_no_anchor_for_hardware_formats(nitro: NitroIssuer) -> None:
    from importlib import resources

    pem = resources.files("cloister.attestation.roots").joinpath("cloister_development.pem").read_bytes()
    with pytest.raises(EvidenceError, match="development root"):
        check_nitro(nitro, nitro.document(), trust_anchors=[pem])


# --- SEV-SNP -------------------------------------------------------------------------------------

TURIN_TCB = {9: 1, 1: 2, 2: 0, 3: 4, 8: 72}
CHIP = b"\x11" * 8


@pytest.fixture(scope="module")
def turin() -> AmdIssuer:
    return AmdIssuer("Turin")


def check_snp(issuer: AmdIssuer, report: bytes, chip: bytes, **changes: Any) -> AuthenticEvidence:
    arguments: dict[str, Any] = {
        "at": AT,
        "trust_anchors": [der(issuer.ark)],
        "endorsements": [chip, der(issuer.ask)],
    } | changes
    return attestation.authenticate(report, format=Format.SEV_SNP, **arguments)


def test_turin_reports_are_read_in_their_own_layout(turin: AmdIssuer) -> None:
    evidence = check_snp(turin, turin.report(), turin.chip(tcb=TURIN_TCB, hardware_id=CHIP))
    expected = {"fmc": 1, "bootloader": 2, "tee": 0, "snp": 4, "microcode": 72}
    assert evidence.claims["reported_tcb"] == expected
    assert evidence.claims["product"] == "Turin"


def test_turin_reports_signed_with_a_vlek_are_accepted(turin: AmdIssuer) -> None:
    vlek = turin.chip(tcb=TURIN_TCB, hardware_id=None, subject="SEV-VLEK")
    evidence = check_snp(turin, turin.report(key_info=1 << 2, chip_id=b""), vlek)
    assert evidence.claims["signing_key"] == "vlek"


def test_an_unwrapped_and_a_wrapped_hardware_id_are_the_same(turin: AmdIssuer) -> None:
    check_snp(turin, turin.report(), turin.chip(tcb=TURIN_TCB, hardware_id=b"\x04\x08" + CHIP))


@pytest.mark.parametrize("arc", TURIN_TCB)
def test_a_certificate_for_another_tcb_is_refused(turin: AmdIssuer, arc: int) -> None:
    other = TURIN_TCB | {arc: TURIN_TCB[arc] + 1}
    with pytest.raises(EvidenceError, match="reported_tcb"):
        check_snp(turin, turin.report(), turin.chip(tcb=other, hardware_id=CHIP))
    absent = {key: value for key, value in TURIN_TCB.items() if key != arc}
    with pytest.raises(EvidenceError, match="reported_tcb"):
        check_snp(turin, turin.report(), turin.chip(tcb=absent, hardware_id=CHIP))


@pytest.mark.parametrize("hardware_id", [b"\x12" * 8, bytes(8), None], ids=["another", "zero", "absent"])
def test_a_certificate_for_another_chip_is_refused(turin: AmdIssuer, hardware_id: bytes | None) -> None:
    report = turin.report(chip_id=CHIP if hardware_id != bytes(8) else b"")
    with pytest.raises(EvidenceError, match="chip_id"):
        check_snp(turin, report, turin.chip(tcb=TURIN_TCB, hardware_id=hardware_id))


@pytest.mark.parametrize(
    "changes",
    [
        {"cpuid": (0x19, 0x11)},
        {"cpuid": (0x1B, 0x00)},
        {"version": 1},
        {"version": 6},
        {"key_info": 7 << 2},
        {"key_info": 2 << 2},
        {"policy": 0x10000},
        {"tcb": bytes([1, 2, 0, 4, 9, 0, 0, 72])},
    ],
    ids=str,
)
def test_a_well_signed_report_that_contradicts_itself_is_refused(
    turin: AmdIssuer, changes: dict[str, Any]
) -> None:
    with pytest.raises(EvidenceError):
        check_snp(turin, turin.report(**changes), turin.chip(tcb=TURIN_TCB, hardware_id=CHIP))


def test_debug_policy_is_seen(turin: AmdIssuer) -> None:
    report = turin.report(policy=0x30000 | 1 << 19)
    assert check_snp(turin, report, turin.chip(tcb=TURIN_TCB, hardware_id=CHIP)).debug


@pytest.mark.parametrize(
    "ask",
    [
        {"usage": make.key_usage(signs=True)},
        {"authority": False, "usage": make.key_usage(issues=True)},
        {"life": (AT - timedelta(days=2), AT - timedelta(days=1))},
        {"pss": False},
        {"extensions": {"1.2.3.4": b"\x05\x00"}, "critical": "1.2.3.4"},
        {"bare": True},
    ],
    ids=["wrong key usage", "not a CA", "expired", "PKCS#1 v1.5", "unknown critical extension", "bare"],
)
def test_an_amd_intermediate_of_the_wrong_form_is_refused(ask: dict[str, Any]) -> None:
    issuer = AmdIssuer("Turin", **ask)
    with pytest.raises(EvidenceError):
        check_snp(issuer, issuer.report(), issuer.chip(tcb=TURIN_TCB, hardware_id=CHIP))


@pytest.mark.parametrize(
    "chip",
    [
        {"life": (AT - timedelta(days=2), AT - timedelta(days=1))},
        {"bare": False, "authority": True},
        {"extensions": {"1.2.3.4": b"\x05\x00"}, "critical": "1.2.3.4"},
    ],
    ids=["expired", "a CA", "unknown critical extension"],
)
def test_a_chip_certificate_of_the_wrong_form_is_refused(turin: AmdIssuer, chip: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        check_snp(turin, turin.report(), turin.chip(tcb=TURIN_TCB, hardware_id=CHIP, **chip))


def test_a_second_intermediate_of_the_same_name_does_not_hide_the_right_one(turin: AmdIssuer) -> None:
    renewed = make.certificate(
        "SEV-Turin", turin.ark_key, (turin.ark, turin.ark_key), authority=True, pss=True
    )
    chip = turin.chip(tcb=TURIN_TCB, hardware_id=CHIP)
    support = [der(renewed), chip, der(turin.ask)]
    assert check_snp(turin, turin.report(), chip, endorsements=support).environment == "test"


def test_amd_names_under_a_foreign_root_are_refused(turin: AmdIssuer) -> None:
    chip = turin.chip(tcb=TURIN_TCB, hardware_id=CHIP)
    with pytest.raises(EvidenceError, match="no AMD root"):
        check_snp(turin, turin.report(), chip, trust_anchors=None)


def test_a_chip_key_that_signed_another_report_is_refused(turin: AmdIssuer) -> None:
    other = AmdIssuer("Turin")
    with pytest.raises(EvidenceError, match="another chip"):
        check_snp(turin, other.report(), turin.chip(tcb=TURIN_TCB, hardware_id=CHIP))


def test_a_revoked_amd_intermediate_is_refused(turin: AmdIssuer) -> None:
    chip = turin.chip(tcb=TURIN_TCB, hardware_id=CHIP)
    ark = (turin.ark, turin.ark_key)
    support = [chip, der(turin.ask)]
    evidence = check_snp(turin, turin.report(), chip, endorsements=[*support, make.crl(ark)])
    assert "revocation of AMD's intermediate" in evidence.checks
    with pytest.raises(EvidenceError, match="revoked"):
        check_snp(turin, turin.report(), chip, endorsements=[*support, make.crl(ark, turin.ask)])


def test_the_certificate_table_of_configfs_is_read(turin: AmdIssuer) -> None:
    chip = turin.chip(tcb=TURIN_TCB, hardware_id=CHIP)
    entries = [chip, der(turin.ask)]
    offset = 24 * (len(entries) + 1)
    table = b""
    for entry in entries:
        table += b"\x01" * 16 + offset.to_bytes(4, "little") + len(entry).to_bytes(4, "little")
        offset += len(entry)
    table += bytes(24) + b"".join(entries)
    assert check_snp(turin, turin.report() + table, chip, endorsements=[]).environment == "test"
    with pytest.raises(EvidenceError):
        check_snp(turin, turin.report() + table[:60], chip, endorsements=[])


# --- TDX and SGX ---------------------------------------------------------------------------------


class Evaluation:
    """The TCB evaluation of a real TDX quote against real collateral, to be changed in one thing."""

    def __init__(self, name: str = "tdx/v4_with_collateral.quote.bin") -> None:
        document = BY_NAME[name]
        self.quote = Quote.parse(read(name))
        self.platform = PlatformTcb.parse(self.quote.embedded_chain[0])
        self.module: TdxModule | None = None
        if document.format is Format.TDX:
            body = self.quote.body
            self.module = TdxModule(
                tee_tcb_svn=body[:16], mr_signer_seam=body[64:112], seam_attributes=body[112:120]
            )
        roots = anchors("intel", None).certificates
        tee = "TDX" if self.module else "SGX"
        self.collateral = Collateral.authenticate(read(document.collateral), roots, tee=tee, at=document.at)
        self.info: Any = self.collateral.tcb_info
        self.identity: Any = self.collateral.qe_identity

    def status(self) -> str:
        return self.collateral.evaluate(self.platform, self.quote.qe_report, self.module).status


def test_a_platform_below_the_newest_level_gets_the_older_status() -> None:
    evaluation = Evaluation()
    newest = evaluation.info["tcbLevels"][0]
    components = list(evaluation.platform.components)
    components[0] = newest["tcb"]["sgxtcbcomponents"][0]["svn"] - 1
    evaluation.platform = replace(evaluation.platform, components=tuple(components))
    try:
        status = evaluation.status()
    except EvidenceError:
        return
    assert status.startswith("OutOfDate")


def test_a_platform_below_every_level_is_refused() -> None:
    evaluation = Evaluation()
    evaluation.platform = replace(evaluation.platform, components=(0,) * 16)
    with pytest.raises(EvidenceError, match="no published TCB level"):
        evaluation.status()


def test_a_revoked_level_is_refused() -> None:
    evaluation = Evaluation()
    for level in evaluation.info["tcbLevels"]:
        level["tcbStatus"] = "Revoked"
    with pytest.raises(EvidenceError, match="revoked"):
        evaluation.status()


@pytest.mark.parametrize("name", ["tdx/v4_with_collateral.quote.bin", "sgx/v3_with_collateral.quote.bin"])
def test_an_outdated_quoting_enclave_makes_the_platform_outdated(name: str) -> None:
    evaluation = Evaluation(name)
    for level in evaluation.identity["tcbLevels"]:
        level["tcbStatus"] = "OutOfDate"
    expected = "OutOfDate" if "tdx" in name else "OutOfDateConfigurationNeeded"
    assert evaluation.status() == expected


def test_an_outdated_tdx_module_makes_the_platform_outdated() -> None:
    evaluation = Evaluation()
    for identity in evaluation.info["tdxModuleIdentities"]:
        for level in identity["tcbLevels"]:
            level["tcbStatus"] = "OutOfDate"
    assert evaluation.status() == "OutOfDate"


def test_an_unpublished_tdx_module_is_refused() -> None:
    evaluation = Evaluation()
    evaluation.info["tdxModuleIdentities"].clear()
    with pytest.raises(EvidenceError, match="TDX module"):
        evaluation.status()


@pytest.mark.parametrize("field", ["mr_signer_seam", "seam_attributes"])
def test_a_tdx_module_by_another_signer_is_refused(field: str) -> None:
    evaluation = Evaluation()
    assert evaluation.module is not None
    original = getattr(evaluation.module, field)
    evaluation.module = replace(evaluation.module, **{field: b"\1" * len(original)})
    with pytest.raises(EvidenceError, match="TDX module"):
        evaluation.status()


@pytest.mark.parametrize("member", ["mrsigner", "attributes", "isvprodid", "miscselect"])
def test_a_quoting_enclave_that_is_not_intels_is_refused(member: str) -> None:
    evaluation = Evaluation()
    value = evaluation.identity[member]
    evaluation.identity[member] = value + 1 if isinstance(value, int) else "ff" * (len(value) // 2)
    with pytest.raises(EvidenceError, match="quoting enclave"):
        evaluation.status()


def test_advisories_of_every_part_are_listed() -> None:
    evaluation = Evaluation()
    evaluation.identity["tcbLevels"][0]["advisoryIDs"] = ["INTEL-SA-00001"]
    result = evaluation.collateral.evaluate(
        evaluation.platform, evaluation.quote.qe_report, evaluation.module
    )
    assert "INTEL-SA-00001" in result.advisories


def test_a_quote_without_its_pck_chain_finds_it_among_the_endorsements() -> None:
    good = read("tdx/v4_spr.quote.bin")
    start = good.index(b"-----BEGIN")
    chain = good[start:]
    # Certification type 5 becomes 1 (encrypted PPID), with empty data; the sizes around it follow.
    body = good[: start - 6] + (1).to_bytes(2, "little") + (0).to_bytes(4, "little")
    outer = 48 + 584
    inner = outer + 4 + 128 + 2
    raw = bytearray(body)
    raw[outer : outer + 4] = (len(body) - outer - 4).to_bytes(4, "little")
    raw[inner : inner + 4] = (len(body) - inner - 4).to_bytes(4, "little")
    document = BY_NAME["tdx/v4_spr.quote.bin"]
    assert document.authenticate(bytes(raw), endorsements=[chain.rstrip(b"\0")]).environment == "hardware"
    with pytest.raises(EvidenceError, match="PCK"):
        document.authenticate(bytes(raw))


def test_the_claims_of_a_policy_are_required_without_collateral() -> None:
    document = BY_NAME["tdx/v4_spr.quote.bin"]
    policy = attestation.AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "tee": {"tdx": {"reference": [{"name": "one", "mr_td": document.claims["mr_td"]}]}},
        }
    )
    with pytest.raises(AppraisalError, match="tcb_status"):
        attestation.appraise_claims(document.authenticate(), policy, at=document.at)


# --- tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> TokenIssuer:
    return TokenIssuer()


def check_gcp(service: TokenIssuer, token: bytes, **changes: Any) -> AuthenticEvidence:
    arguments: dict[str, Any] = {"at": AT, "jwks": service.jwks} | changes
    return attestation.authenticate(token, format=Format.GCP_CONFIDENTIAL_SPACE, **arguments)


def check_maa(service: TokenIssuer, token: bytes, **changes: Any) -> AuthenticEvidence:
    arguments: dict[str, Any] = {"at": AT, "jwks": service.jwks} | changes
    return attestation.authenticate(token, format=Format.AZURE_MAA, **arguments)


def test_an_oidc_token_is_accepted_under_the_issuers_keys(service: TokenIssuer) -> None:
    evidence = check_gcp(service, service.token(make.confidential_space_claims()))
    assert evidence.binding["nonce"] == (b"n" * 43,)
    assert any("jwks" in line for line in evidence.not_checked)


@pytest.mark.parametrize("alg", ["none", "HS256", "RS384", "PS256", "ES256", "", None])
def test_another_algorithm_is_refused(service: TokenIssuer, alg: str | None) -> None:
    token = service.token(make.confidential_space_claims(), {"alg": alg})
    with pytest.raises(EvidenceError, match="RS256"):
        check_gcp(service, token)


def test_algorithm_none_without_signature_is_refused(service: TokenIssuer) -> None:
    token = service.token(make.confidential_space_claims(), {"alg": "none"})
    with pytest.raises(EvidenceError):
        check_gcp(service, token.rpartition(b".")[0] + b".")


def test_hs256_with_the_rsa_key_as_secret_is_refused(service: TokenIssuer) -> None:
    with pytest.raises(EvidenceError, match="RS256"):
        check_gcp(service, service.hs256_with_the_public_key(make.confidential_space_claims()))


@pytest.mark.parametrize(
    "header", [{"kid": "k2"}, {"kid": None}, {"typ": "at+jwt"}, {"crit": ["x"]}, {"jwk": {}}], ids=str
)
def test_a_header_that_is_not_ours_to_follow_is_refused(service: TokenIssuer, header: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        check_gcp(service, service.token(make.confidential_space_claims(), header))


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://accounts.google.com"},
        {"iss": ...},
        {"swname": "GCE"},
        {"swname": ...},
        {"exp": int(AT.timestamp()) - 1},
        {"exp": ...},
        {"exp": True},
        {"nbf": int(AT.timestamp()) + 60},
        {"nbf": ...},
        {"iat": "now"},
    ],
    ids=str,
)
def test_a_well_signed_token_with_wrong_claims_is_refused(
    service: TokenIssuer, change: dict[str, Any]
) -> None:
    with pytest.raises(EvidenceError):
        check_gcp(service, service.token(make.confidential_space_claims(**change)))


@pytest.mark.parametrize("dbgstat", ["enabled", "disabled", ...], ids=str)
def test_any_other_debug_status_is_debug(service: TokenIssuer, dbgstat: Any) -> None:
    assert check_gcp(service, service.token(make.confidential_space_claims(dbgstat=dbgstat))).debug


@pytest.mark.parametrize(
    "jwks",
    [
        None,
        b"",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[{"kid":"k1"}]}',
        b'{"keys":[{"kid":"k1","kty":"oct","k":"AAAA"}]}',
        b'{"keys":[{"kid":"k1","kty":"RSA","n":"AQAB","e":"AQAB"}]}',
    ],
)
def test_unusable_issuer_keys_are_refused(service: TokenIssuer, jwks: bytes | None) -> None:
    with pytest.raises(EvidenceError):
        check_gcp(service, service.token(make.confidential_space_claims()), jwks=jwks)


def test_two_keys_of_one_name_are_refused_and_one_key_listed_twice_is_not(service: TokenIssuer) -> None:
    token = service.token(make.confidential_space_claims())
    other = service.jwk | {"n": make.b64url(b"\xc1" + bytes(254) + b"\x01")}
    for keys, accepted in (([service.jwk] * 2, True), ([service.jwk, other], False)):
        jwks = json.dumps({"keys": keys}).encode()
        if accepted:
            check_gcp(service, token, jwks=jwks)
        else:
            with pytest.raises(EvidenceError, match="jwks"):
                check_gcp(service, token, jwks=jwks)


def _x5c(*certificates: Any) -> dict[str, Any]:
    import base64

    return {"kid": None, "x5c": [base64.b64encode(der(cert)).decode() for cert in certificates]}


def test_a_pki_token_is_accepted_under_its_root_and_refused_under_the_pinned_one(
    service: TokenIssuer,
) -> None:
    token = service.token(make.confidential_space_claims(), _x5c(service.leaf(), service.root))
    evidence = check_gcp(service, token, jwks=None, trust_anchors=[der(service.root)])
    assert evidence.environment == "test"
    with pytest.raises(EvidenceError, match="trust anchor"):
        check_gcp(service, token)


@pytest.mark.parametrize(
    "leaf",
    [{"usage": make.key_usage(issues=True)}, {"life": (AT - timedelta(days=2), AT - timedelta(days=1))}],
    ids=["wrong key usage", "expired"],
)
def test_a_pki_token_by_a_wrong_leaf_is_refused(service: TokenIssuer, leaf: dict[str, Any]) -> None:
    token = service.token(make.confidential_space_claims(), _x5c(service.leaf(**leaf), service.root))
    with pytest.raises(EvidenceError):
        check_gcp(service, token, trust_anchors=[der(service.root)])


MAA_TYPES: dict[str, dict[str, Any]] = {
    "sevsnpvm": {},
    "sgx": {"x-ms-attestation-type": "sgx", "x-ms-sgx-is-debuggable": False},
    "tdxvm": {"x-ms-attestation-type": "tdxvm", "tdx_td_attributes_debug": False},
    "azurevm": {
        "x-ms-attestation-type": "azurevm",
        "x-ms-isolation-tee": {"x-ms-attestation-type": "sevsnpvm", "x-ms-sevsnpvm-is-debuggable": False},
    },
    "azurevm on TDX": {
        "x-ms-attestation-type": "azurevm",
        "x-ms-isolation-tee": {"x-ms-attestation-type": "tdxvm", "tdx_td_attributes_debug": False},
    },
}


@pytest.mark.parametrize("kind", MAA_TYPES)
def test_maa_tokens_of_every_tee_are_accepted(service: TokenIssuer, kind: str) -> None:
    evidence = check_maa(service, service.token(make.maa_claims(**MAA_TYPES[kind])))
    assert not evidence.debug
    assert b"n" * 43 in evidence.binding["nonce"]
    assert not any("isolation" in line for line in evidence.not_checked)


@pytest.mark.parametrize(
    "change",
    [
        {"x-ms-sevsnpvm-is-debuggable": True},
        {"x-ms-sevsnpvm-is-debuggable": ...},
        {"x-ms-sevsnpvm-is-debuggable": "false"},
        {"x-ms-attestation-type": "sgx"},
        {"x-ms-attestation-type": "tdxvm"},
        {"x-ms-azurevm-kerneldebug-enabled": True},
        {"x-ms-azurevm-debuggersdisabled": False},
        {"x-ms-attestation-type": "azurevm", "x-ms-isolation-tee": {"x-ms-attestation-type": "new"}},
    ],
    ids=str,
)
def test_maa_debug_is_seen_and_absent_counts_as_debug(service: TokenIssuer, change: dict[str, Any]) -> None:
    assert check_maa(service, service.token(make.maa_claims(**change))).debug


def test_an_maa_token_without_a_tee_says_so(service: TokenIssuer) -> None:
    token = service.token(make.maa_claims(**{"x-ms-attestation-type": "azurevm"}))
    assert any("measured boot only" in line for line in check_maa(service, token).not_checked)


@pytest.mark.parametrize(
    "issuer",
    [
        "http://shareduks.uks.attest.azure.net",
        "https://attest.azure.net.evil.example",
        "https://evil.example/.attest.azure.net",
        "https://shareduks.uks.attest.azure.net/",
        "https://shareduks.uks.attest.azure.net\n",
        7,
        ...,
    ],
    ids=str,
)
def test_a_foreign_maa_issuer_is_refused(service: TokenIssuer, issuer: Any) -> None:
    with pytest.raises(EvidenceError, match="iss"):
        check_maa(service, service.token(make.maa_claims(iss=issuer)))


def test_a_key_address_that_is_not_the_issuers_is_refused(service: TokenIssuer) -> None:
    token = service.token(make.maa_claims(), {"jku": "https://evil.example/certs"})
    with pytest.raises(EvidenceError, match="jku"):
        check_maa(service, token)


# --- TPM -----------------------------------------------------------------------------------------


def test_a_quote_is_refused_with_another_pinned_key() -> None:
    hcl = bytearray(read("tpm/az_snp_hcl_report.bin"))
    position = hcl.index(b'"n":"') + 20
    hcl[position] = ord("A") if hcl[position] != ord("A") else ord("B")
    with pytest.raises(EvidenceError, match="signature"):
        BY_NAME["tpm/az_snp_quote.json"].authenticate(trust_anchors=[bytes(hcl)])


def test_an_hcl_report_without_its_chip_certificate_vouches_for_nothing() -> None:
    document = BY_NAME["tpm/az_snp_quote.json"]
    hcl = read("tpm/az_snp_hcl_report.bin")
    for format_ in (Format.TPM, Format.AZURE_VTPM):
        with pytest.raises(EvidenceError, match="chip certificate"):
            document.authenticate(format=format_, trust_anchors=None, endorsements=[hcl])
    with pytest.raises(EvidenceError, match="vouches"):
        document.authenticate(trust_anchors=None)


def test_the_chip_certificate_of_another_machine_vouches_for_no_hcl_report() -> None:
    with pytest.raises(EvidenceError, match=r"another chip|reported_tcb"):
        BY_NAME["tpm/az_snp_quote.json"].authenticate(
            trust_anchors=None,
            endorsements=[read("tpm/az_snp_hcl_report.bin"), read("snp/v2_milan_vcek.cert.der")],
        )
