"""Every attester against a faithful double: an NSM responder, a configfs tree, a software TPM, a launcher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister import attestation
from cloister.attestation import Format
from cloister.errors import ConfigurationError, EvidenceError, UnavailableError
from cloister_host.attester.confidential_space import ConfidentialSpaceAttester
from cloister_host.attester.configfs_tsm import TsmAttester
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.probing import choose_attester
from cloister_host.attester.simulated import SimulatedAttester
from cloister_host.attester.tpm2 import Tpm2Attester
from cloister_host.attester.tpm_client import TpmSocket, attestation_key_point
from support import evidence_builders as make
from support.tee_doubles import configfs, launcher, nsm, software_tpm

STATEMENT = b'{"purpose":"cloister.attestation.v1"}'
NONCE = bytes(range(32))


def bound(evidence: attestation.AuthenticEvidence) -> bool:
    policy = attestation.AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "environment": "test",
            "trust_anchors": ["unused"],
            "tee": {evidence.format.value: {"reference": [{"name": "any", "bound": True}]}},
        }
    )
    claims = dict(evidence.claims) | {"bound": True}
    appraisal = attestation.appraise(
        replace(evidence, claims=claims), policy, statement=STATEMENT, nonce=NONCE, at=make.AT
    )
    return "statement and nonce" in appraisal.checks


# --- Nitro ---------------------------------------------------------------------------------------


def test_a_nitro_document_carries_statement_and_nonce() -> None:
    issuer = make.NitroIssuer()
    document = NitroAttester(nsm(issuer)).evidence(statement=STATEMENT, nonce=NONCE)
    evidence = attestation.authenticate(
        document, format=Format.NITRO, at=make.AT, trust_anchors=[make.der(issuer.root)]
    )
    assert bound(evidence)


@pytest.mark.parametrize("answer", [b"", b"\xff", cbor2.dumps({"Error": "InvalidArgument"}), cbor2.dumps(1)])
def test_a_refusing_nsm_is_unavailable(answer: bytes) -> None:
    with pytest.raises(UnavailableError):
        NitroAttester(lambda _request: answer).evidence(statement=STATEMENT, nonce=NONCE)


def test_a_missing_nsm_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        NitroAttester().evidence(statement=STATEMENT, nonce=NONCE)


def test_a_statement_beyond_the_nsms_buffer_is_refused() -> None:
    with pytest.raises(UnavailableError, match="too large"):
        NitroAttester(lambda _request: b"").evidence(statement=b"x" * 5000, nonce=NONCE)


# --- configfs-tsm --------------------------------------------------------------------------------


def test_an_snp_report_is_read_through_configfs(tmp_path: Path) -> None:
    with configfs(tmp_path, "sev_guest") as root:
        attester = TsmAttester(root, privilege_level=1)
        report = attester.evidence(statement=STATEMENT, nonce=NONCE)
    assert attester.format is Format.SEV_SNP
    expected = attestation.report_data(Format.SEV_SNP, STATEMENT, NONCE)["report_data"]
    assert report[0x50:0x90] == expected
    assert report[0x30] == 1
    assert len(report) == 1184


def test_a_tdx_quote_is_read_without_the_kernels_padding(tmp_path: Path) -> None:
    with configfs(tmp_path, "tdx_guest") as root:
        attester = TsmAttester(root)
        quote = attester.evidence(statement=STATEMENT, nonce=NONCE)
    assert attester.format is Format.TDX
    assert quote.endswith(b"sig")
    assert attestation.report_data(Format.TDX, STATEMENT, NONCE)["report_data"] in quote


def test_a_report_that_another_process_disturbed_is_read_again(tmp_path: Path) -> None:
    with configfs(tmp_path, "sev_guest", races=2) as root:
        report = TsmAttester(root).evidence(statement=STATEMENT, nonce=NONCE)
    assert report[0x50:0x90] == attestation.report_data(Format.SEV_SNP, STATEMENT, NONCE)["report_data"]


def test_a_report_that_is_disturbed_every_time_is_unavailable(tmp_path: Path) -> None:
    with (
        configfs(tmp_path, "sev_guest", races=99) as root,
        pytest.raises(UnavailableError, match="another process"),
    ):
        TsmAttester(root).evidence(statement=STATEMENT, nonce=NONCE)


def test_an_unknown_provider_is_unavailable(tmp_path: Path) -> None:
    with configfs(tmp_path, "new_guest") as root, pytest.raises(UnavailableError, match="provider"):
        TsmAttester(root)


def test_a_missing_configfs_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="not available"):
        TsmAttester(tmp_path / "none")


# --- TPM 2.0 -------------------------------------------------------------------------------------


def test_a_quote_of_a_real_software_tpm_is_authenticated(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as connect:
        x, y = attestation_key_point(connect)
        document = Tpm2Attester(connect, pcrs=(0, 7, 11)).evidence(statement=STATEMENT, nonce=NONCE)
        again = Tpm2Attester(connect, pcrs=(0, 7, 11)).evidence(statement=STATEMENT, nonce=b"other")
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    evidence = attestation.authenticate(document, format=Format.TPM, at=make.AT, trust_anchors=[pem])
    assert bound(evidence)
    assert evidence.claims["pcr0"] == "00" * 32
    # The TPM makes the same key each time, so it can be pinned at enrolment.
    attestation.authenticate(again, format=Format.TPM, at=make.AT, trust_anchors=[pem])
    altered = json.loads(document)
    altered["pcrs"]["7"] = "11" * 32
    with pytest.raises(EvidenceError, match="pcrs"):
        attestation.authenticate(
            json.dumps(altered).encode(), format=Format.TPM, at=make.AT, trust_anchors=[pem]
        )


def test_a_missing_tpm_is_unavailable(tmp_path: Path) -> None:
    attester = Tpm2Attester(lambda: TpmSocket(tmp_path / "none"))
    with pytest.raises(UnavailableError):
        attester.evidence(statement=STATEMENT, nonce=NONCE)


@pytest.mark.parametrize(
    "answer", [b"", b"\x80\x01", b"\x80\x01\0\0\0\x0a\0\0\x01\x01", b"\x80\x01\0\0\0\x0a\0\0\0\0"]
)
def test_a_tpm_that_answers_nonsense_is_unavailable(answer: bytes) -> None:
    class Broken:
        def transmit(self, _command: bytes) -> bytes:
            return answer

        def close(self) -> None:
            pass

    with pytest.raises(UnavailableError):
        Tpm2Attester(Broken).evidence(statement=STATEMENT, nonce=NONCE)


# --- Confidential Space --------------------------------------------------------------------------


def test_a_confidential_space_token_carries_the_statements_digest(tmp_path: Path) -> None:
    service = make.TokenIssuer()

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        claims = make.confidential_space_claims(aud=request["audience"], eat_nonce=request["nonces"])
        return 200, service.token(claims)

    path = tmp_path / "teeserver.sock"
    with launcher(path, answer):
        attester = ConfidentialSpaceAttester(audience="https://cloister.example", path=path)
        token = attester.evidence(statement=STATEMENT, nonce=NONCE)
    evidence = attestation.authenticate(
        token, format=Format.GCP_CONFIDENTIAL_SPACE, at=make.AT, jwks=service.jwks, trust_anchors=[]
    )
    assert bound(evidence)


def test_a_refusing_launcher_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "teeserver.sock"
    attester = ConfidentialSpaceAttester(audience="a", path=path)
    with launcher(path, lambda _request: (500, b"no")), pytest.raises(UnavailableError, match="500"):
        attester.evidence(statement=STATEMENT, nonce=NONCE)


def test_a_missing_launcher_is_unavailable(tmp_path: Path) -> None:
    attester = ConfidentialSpaceAttester(audience="a", path=tmp_path / "none")
    with pytest.raises(UnavailableError):
        attester.evidence(statement=STATEMENT, nonce=NONCE)


# --- probing -------------------------------------------------------------------------------------


def test_the_strongest_device_that_answers_is_chosen(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as connect:
        connect().close()
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/tpmrm0").symlink_to(tmp_path / "tpm.sock")
        # A configfs without a report provider is passed over.
        (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
        assert isinstance(choose_attester(root=tmp_path), Tpm2Attester)
        (tmp_path / "run/container_launcher").mkdir(parents=True)
        (tmp_path / "run/container_launcher/teeserver.sock").touch()
        assert isinstance(choose_attester(root=tmp_path), ConfidentialSpaceAttester)
        (tmp_path / "dev/nsm").touch()
        assert isinstance(choose_attester(root=tmp_path), NitroAttester)


def test_a_device_that_does_not_answer_is_no_tee(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tpmrm0").touch()
    with pytest.raises(ConfigurationError, match="no TEE"):
        choose_attester(root=tmp_path)


def test_simulation_is_never_a_fallback(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no TEE"):
        choose_attester(root=tmp_path)
    assert isinstance(choose_attester("simulated"), SimulatedAttester)


def test_an_unknown_attester_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown"):
        choose_attester("sgx1")
