"""Genuine evidence passes in every layout that public tools write; the same layouts hide no forgery."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote as percent

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister import attestation
from cloister.attestation import Format
from cloister.errors import AppraisalError, EvidenceError
from support import evidence_builders as make
from support.evidence_vectors import BY_NAME, read
from support.intel_builder import IntelIssuer

AZURE = BY_NAME["tpm/az_snp_evidence_v2.json"]
TDX = BY_NAME["tdx/v4_with_collateral.quote.bin"]
SGX = BY_NAME["sgx/v3_with_collateral.quote.bin"]


def dump(members: Any) -> bytes:
    return json.dumps(members).encode()


def url64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- Azure's evidence ----------------------------------------------------------------------------


def first_layout(members: dict[str, Any]) -> dict[str, Any]:
    """The oldest layout: arrays of bytes, the VCEK in PEM."""
    quote = members["tpm_quote"]
    lines = base64.encodebytes(url64(members["vcek"])).decode()
    return {
        "quote": {
            "signature": list(bytes.fromhex(quote["signature"])),
            "message": list(bytes.fromhex(quote["message"])),
            "pcrs": [list(bytes.fromhex(value)) for value in quote["pcrs"]],
        },
        "report": list(url64(members["hcl_report"])),
        "vcek": f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n",
    }


LAYOUTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "version 0": first_layout,
    "version 1": lambda members: members | {"version": 1},
    "wrapped": lambda members: {"platform": "az-snp", "evidence": members},
    "standard base64": lambda members: members | {"vcek": base64.b64encode(url64(members["vcek"])).decode()},
    "unpadded base64": lambda members: members | {"vcek": members["vcek"].rstrip("=")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_azures_evidence_is_read_in_every_layout(layout: str) -> None:
    members = json.loads(read(AZURE.name))
    evidence = AZURE.authenticate(dump(LAYOUTS[layout](members)))
    assert evidence.environment == "hardware"
    assert evidence.claims["hardware"]["product"] == "Milan"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"version": True},
        {"version": "2"},
        {"more": 1},
        {"vcek": ""},
        {"vcek": "AAAA"},
        {"td_quote": "AAAA"},
        {"hcl_report": ""},
        {"tpm_quote": {}},
    ],
    ids=str,
)
def test_azures_evidence_with_one_member_changed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        AZURE.authenticate(dump(json.loads(read(AZURE.name)) | change))


def test_another_chips_certificate_does_not_vouch_for_azures_report() -> None:
    members = json.loads(read(AZURE.name))
    members["vcek"] = base64.b64encode(read("snp/v2_milan_vcek.cert.der")).decode()
    with pytest.raises(EvidenceError):
        AZURE.authenticate(dump(members))


def test_azures_report_of_another_machine_does_not_vouch_for_the_quote() -> None:
    members = json.loads(read(AZURE.name))
    members["hcl_report"] = base64.b64encode(read("tpm/az_snp_hcl_report.bin")).decode()
    with pytest.raises(EvidenceError):
        AZURE.authenticate(dump(members))


def azure_policy(format_: Format, **claims: str) -> attestation.AppraisalPolicy:
    reference = {"name": "image", **claims}
    return attestation.AppraisalPolicy.from_mapping(
        {"version": 1, "tee": {format_: {"reference": [reference]}}}
    )


@pytest.mark.parametrize("format_", [Format.AZURE_VTPM, Format.TPM])
def test_a_policy_must_say_which_confidential_vm_may_vouch_for_a_tpm(format_: Format) -> None:
    """Or anybody's could vouch for a key of its own, and quote with it whatever PCRs a policy wants."""
    evidence = AZURE.authenticate(format=format_)
    pcrs = {name: evidence.claims[name] for name in ("pcr4", "pcr7")}
    with pytest.raises(AppraisalError, match=r"hardware\.measurement"):
        attestation.appraise_claims(evidence, azure_policy(format_, **pcrs), at=AZURE.at)
    measurement = evidence.claims["hardware"]["measurement"]
    sound = azure_policy(format_, **pcrs, **{"hardware.measurement": measurement})
    assert (
        "hardware that vouches for the TPM"
        in attestation.appraise_claims(evidence, sound, at=AZURE.at).checks
    )
    other = azure_policy(format_, **pcrs, **{"hardware.measurement": "00" * 48})
    with pytest.raises(AppraisalError, match=r"hardware\.measurement"):
        attestation.appraise_claims(evidence, other, at=AZURE.at)


class AzureMachine:
    """A confidential VM under test roots: an AK, and hardware that vouches for it."""

    def __init__(self) -> None:
        self.key: rsa.RSAPrivateKey = make._rsa("azure-ak", 2048)
        self.runtime = make.hcl_runtime(self.key.public_key())
        digest = hashlib.sha256(self.runtime).digest()
        self.report_data = digest.ljust(64, b"\0")

    def quote(self) -> dict[str, Any]:
        pcrs = [bytes([index]) * 32 for index in range(24)]
        message = (
            b"\xffTCG\x80\x18" + b"\0\4name" + b"\0\5nonce" + bytes(17 + 8) + b"\0\0\0\1\0\x0b\3\xff\xff\xff"
        )
        message += b"\0\x20" + hashlib.sha256(b"".join(pcrs)).digest()
        signature = self.key.sign(message, padding.PKCS1v15(), SHA256())
        return {
            "message": message.hex(),
            "signature": signature.hex(),
            "pcrs": [value.hex() for value in pcrs],
        }


def test_a_tdx_quote_vouches_for_azures_key_in_the_evidence_or_beside_it() -> None:
    machine, issuer = AzureMachine(), IntelIssuer()
    quote = issuer.quote(machine.report_data)
    anchors = [make.der(issuer.root)]
    whole = {
        "version": 1,
        "tpm_quote": machine.quote(),
        "hcl_report": base64.b64encode(make.hcl_report(4, b"", machine.runtime)).decode(),
        "td_quote": base64.b64encode(quote).decode(),
    }
    evidence = authenticate_azure(dump(whole), trust_anchors=anchors)
    assert evidence.claims["ak"] == "hcl-tdx"
    beside = [quote, make.hcl_report(4, b"", machine.runtime)]
    authenticate_azure(dump(machine.quote()), trust_anchors=anchors, endorsements=beside)
    with pytest.raises(EvidenceError, match="exactly one"):
        authenticate_azure(dump(machine.quote()), trust_anchors=anchors, endorsements=beside[1:])
    other = issuer.quote(b"another")
    with pytest.raises(EvidenceError, match="speaks of another"):
        authenticate_azure(dump(machine.quote()), trust_anchors=anchors, endorsements=[other, beside[1]])


def test_a_report_below_the_paravisor_vouches_for_no_key() -> None:
    machine, issuer = AzureMachine(), make.AmdIssuer()
    chip = issuer.chip(tcb={1: 2, 2: 0, 3: 4, 8: 72, 9: 1}, hardware_id=b"\x11" * 8)
    anchors = [make.der(issuer.ark)]
    for vmpl in (0, 1):
        report = issuer.report(report_data=machine.report_data, vmpl=vmpl)
        beside = [make.hcl_report(2, report, machine.runtime), chip, make.der(issuer.ask)]
        if vmpl == 0:
            authenticate_azure(dump(machine.quote()), trust_anchors=anchors, endorsements=beside)
        else:
            with pytest.raises(EvidenceError, match="vmpl"):
                authenticate_azure(dump(machine.quote()), trust_anchors=anchors, endorsements=beside)


def authenticate_azure(raw: bytes, **support: Any) -> attestation.AuthenticEvidence:
    return attestation.authenticate(raw, format=Format.AZURE_VTPM, at=make.AT, **support)


# --- a quote beside its key, and NitroTPM --------------------------------------------------------


def test_a_key_beside_the_quote_vouches_for_nothing_until_it_is_pinned() -> None:
    machine = AzureMachine()
    public = machine.key.public_key()
    quote = machine.quote()
    signature = b"\0\x14\0\x0b\1\0" + bytes.fromhex(quote["signature"])
    members = {
        "ak_public": base64.b64encode(
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode(),
        "tpm_quote": {
            "message": base64.b64encode(bytes.fromhex(quote["message"])).decode(),
            "signature": base64.b64encode(signature).decode(),
            "pcrs": quote["pcrs"],
        },
    }
    arguments: dict[str, Any] = {"format": Format.TPM, "at": make.AT}
    with pytest.raises(EvidenceError, match="nothing vouches"):
        attestation.authenticate(dump(members), **arguments)
    pinned = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert attestation.authenticate(dump(members), trust_anchors=[pinned], **arguments).environment == "test"
    other = make._rsa("another-ak", 2048).public_key()
    members["ak_public"] = base64.b64encode(
        other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode()
    with pytest.raises(EvidenceError, match="not the certified one"):
        attestation.authenticate(dump(members), trust_anchors=[pinned], **arguments)


@pytest.mark.parametrize("member", ["nonce", "public_key", "nitrotpm_pcrs"])
def test_a_nitrotpm_document_that_speaks_of_something_else_vouches_for_no_quote(member: str) -> None:
    real = json.loads(read("tpm/vaportpm_nitro.json"))
    issuer = make.NitroIssuer()
    key = real["ak_pubkeys"]["ecc_p256"]
    members: dict[str, Any] = {
        "pcrs": ...,
        "nitrotpm_pcrs": {int(name): bytes.fromhex(pcr) for name, pcr in real["pcrs"]["sha384"].items()},
        "public_key": bytes.fromhex("04" + key["x"] + key["y"]),
        "nonce": bytes.fromhex(real["nonce"]),
    }
    wrong = {
        "nonce": b"another",
        "public_key": members["public_key"][:64] + b"\0",
        "nitrotpm_pcrs": members["nitrotpm_pcrs"] | {4: bytes(48)},
    }
    arguments: dict[str, Any] = {
        "format": Format.TPM,
        "at": make.AT,
        "trust_anchors": [make.der(issuer.root)],
    }
    for changes in ({}, {member: wrong[member]}):
        real["attestation"]["nitro"]["document"] = issuer.document(members=members | changes).hex()
        if not changes:
            assert attestation.authenticate(dump(real), **arguments).claims["ak"] == "nitro-tpm"
        else:
            with pytest.raises(EvidenceError):
                attestation.authenticate(dump(real), **arguments)


# --- Intel's collateral --------------------------------------------------------------------------

Members = dict[str, str]


def whole(members: Members, name: str, outer: str) -> str:
    return f'{{"{outer}":{members[name]},"signature":"{members[f"{name}_signature"]}"}}'


def as_structure(members: Members) -> dict[str, Any]:
    """Intel's `sgx_ql_qve_collateral_t`: answers with their signatures, lists in PEM or hex."""
    named = {name: members[name] for name in ("tcb_info_issuer_chain", "qe_identity_issuer_chain")}
    crl = x509.load_der_x509_crl(bytes.fromhex(members["root_ca_crl"]))
    return named | {
        "version": 3,
        "tcb_info": whole(members, "tcb_info", "tcbInfo"),
        "qe_identity": whole(members, "qe_identity", "enclaveIdentity"),
        "root_ca_crl": crl.public_bytes(Encoding.PEM).decode(),
        "pck_crl": members["pck_crl"].upper(),
    }


def camel(members: Members) -> dict[str, Any]:
    def rename(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(part.capitalize() for part in rest)

    return {rename(name): value for name, value in members.items()}


def as_objects(members: Members) -> dict[str, Any]:
    structure = as_structure(members)
    return structure | {name: json.loads(structure[name]) for name in ("tcb_info", "qe_identity")}


def with_headers(members: Members) -> dict[str, Any]:
    """Answers of Intel's PCS as they come, with their headers."""
    return {
        "tcbInfo": {
            "body": whole(members, "tcb_info", "tcbInfo"),
            "headers": {"TCB-Info-Issuer-Chain": percent(members["tcb_info_issuer_chain"])},
        },
        "enclaveIdentity": {
            "body": whole(members, "qe_identity", "enclaveIdentity"),
            "headers": {"SGX-Enclave-Identity-Issuer-Chain": percent(members["qe_identity_issuer_chain"])},
        },
        "pckCrl": {
            "body": base64.b64encode(bytes.fromhex(members["pck_crl"])).decode(),
            "headers": {"SGX-PCK-CRL-Issuer-Chain": percent(members["pck_crl_issuer_chain"])},
        },
        "rootCaCrl": members["root_ca_crl"],
    }


COLLATERAL: dict[str, Callable[[Members], dict[str, Any]]] = {
    "structure": as_structure,
    "camel": camel,
    "objects": as_objects,
    "headers": with_headers,
}


@pytest.mark.parametrize("document", [TDX, SGX], ids=["tdx", "sgx"])
@pytest.mark.parametrize("layout", COLLATERAL)
def test_collateral_is_read_in_every_layout(document: Any, layout: str) -> None:
    members = json.loads(read(document.collateral))
    evidence = document.authenticate(collateral=dump(COLLATERAL[layout](members)))
    assert evidence.claims["tcb_status"] == document.claims["tcb_status"]


@pytest.mark.parametrize("layout", COLLATERAL)
def test_a_changed_status_is_refused_in_every_layout(layout: str) -> None:
    members = json.loads(read(TDX.collateral))
    members["tcb_info"] = members["tcb_info"].replace("OutOfDate", "UpToDate", 1)
    with pytest.raises(EvidenceError, match="signature of tcb_info"):
        TDX.authenticate(collateral=dump(COLLATERAL[layout](members)))


def test_collateral_that_says_something_twice_is_refused() -> None:
    members = json.loads(read(TDX.collateral))
    with pytest.raises(EvidenceError, match="collateral"):
        TDX.authenticate(collateral=dump(members | {"tcbInfo": members["tcb_info"] + " "}))


def test_sgx_collateral_of_the_older_version_is_evaluated() -> None:
    issuer = IntelIssuer()
    raw = issuer.sgx_quote(b"x")

    def collateral(**level: Any) -> bytes:
        return dump(issuer.sgx_collateral_v2(**level))

    arguments: dict[str, Any] = {
        "format": Format.SGX,
        "at": make.AT,
        "trust_anchors": [make.der(issuer.root)],
    }
    evidence = attestation.authenticate(raw, collateral=collateral(), **arguments)
    assert evidence.claims["tcb_status"] == "UpToDate"
    with pytest.raises(EvidenceError, match="no published TCB level"):
        attestation.authenticate(raw, collateral=collateral(sgxtcbcomp07svn=9), **arguments)


# --- tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> make.TokenIssuer:
    return make.TokenIssuer()


NONCE = bytes(range(32))


@pytest.mark.parametrize(
    "carried",
    [
        NONCE.hex(),
        make.b64url(NONCE),
        base64.b64encode(NONCE).decode(),
        ["another-nonce-of-somebody", NONCE.hex()],
    ],
)
def test_a_nonce_is_found_as_a_text_or_in_a_list_in_every_encoding(
    service: make.TokenIssuer, carried: Any
) -> None:
    evidence = attestation.authenticate(
        service.token(make.confidential_space_claims(eat_nonce=carried)),
        format=Format.GCP_CONFIDENTIAL_SPACE,
        at=make.AT,
        jwks=service.jwks,
    )
    attestation.appraise_freshness(evidence, nonce=NONCE, allow_debug=False, at=make.AT)
    with pytest.raises(EvidenceError, match="nonce"):
        attestation.appraise_freshness(evidence, nonce=NONCE[::-1], allow_debug=False, at=make.AT)


def test_issuer_keys_may_be_certificates_that_carry_a_quote(service: make.TokenIssuer) -> None:
    large = service.leaf(extensions={"1.3.6.1.4.1.311.105.1": bytes(20_000)})
    jwk = {"kty": "RSA", "kid": "k1", "x5c": [base64.b64encode(make.der(large)).decode()]}
    attestation.authenticate(
        service.token(make.maa_claims()),
        format=Format.AZURE_MAA,
        at=make.AT,
        jwks=dump({"keys": [{"kty": "EC", "kid": "other"}, jwk]}),
    )


@pytest.mark.parametrize(("claims", "debug"), [({}, True), ({"is-debuggable": False}, False)])
def test_the_older_name_of_sgx_debug_counts(
    service: make.TokenIssuer, claims: dict[str, Any], debug: bool
) -> None:
    token = service.token(make.maa_claims(**{"x-ms-attestation-type": "sgx"} | claims))
    arguments: dict[str, Any] = {"format": Format.AZURE_MAA, "at": make.AT, "jwks": service.jwks}
    assert attestation.authenticate(token, **arguments).debug is debug
    both = make.maa_claims(
        **{"x-ms-attestation-type": "sgx", "x-ms-sgx-is-debuggable": False, "is-debuggable": True}
    )
    assert attestation.authenticate(service.token(both), **arguments).debug


@pytest.mark.parametrize("audience", ["one", ["one", "two"], "cloister:x"])
def test_any_audience_is_read_and_left_to_the_policy(service: make.TokenIssuer, audience: Any) -> None:
    evidence = attestation.authenticate(
        service.pki_token(make.confidential_space_claims(aud=audience)),
        format=Format.GCP_CONFIDENTIAL_SPACE,
        at=make.AT,
        trust_anchors=[make.der(service.root)],
    )
    assert evidence.claims["aud"] == audience
