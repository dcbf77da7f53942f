"""A whole host on each kind of TEE (faithful doubles, a real software TPM), appraised by a real client."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister import Client
from cloister.attestation import AppraisalPolicy, Format
from cloister.errors import AppraisalError, ConfigurationError, EvidenceError, UnavailableError
from cloister.identity import ApiKey
from cloister.transport.stdlib import HttpTransport
from cloister_host import app
from cloister_host.attester import Attester
from cloister_host.attester import parts as attester_parts
from cloister_host.attester.confidential_space import ConfidentialSpaceAttester
from cloister_host.attester.configfs_tsm import TsmAttester
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.settings import AttesterSettings
from cloister_host.attester.tpm2 import tpm_attester
from cloister_host.development import policy_text
from cloister_host.identity.caller import SYSTEM_TENANT
from cloister_host.server import running
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from cloister_host.unseal.settings import ShamirSettings
from support import evidence_builders as make
from support import require, tpm_provisioning
from support.intel_builder import IntelIssuer
from support.tee_doubles import configfs, launcher, nsm, software_tpm

Get = Callable[[str], tuple[bytes, Mapping[str, str]]]


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make evidence for now: the hosts and clients here run on the real clock."""
    now = datetime.now(UTC).replace(microsecond=0)
    monkeypatch.setattr(make, "AT", now)
    monkeypatch.setattr(make, "LIFE", (now - timedelta(hours=1), now + timedelta(hours=2)))
    monkeypatch.setattr(make, "LONG", (now - timedelta(days=365), now + timedelta(days=3650)))


class World:
    """Settings of a host in a folder, and the vendor that it may ask."""

    def __init__(self, folder: Path, root: bytes, monkeypatch: pytest.MonkeyPatch, get: Get | None) -> None:
        (folder / "root.pem").write_bytes(root)
        self.settings = HostSettings(
            state=folder / "state",
            attester=AttesterSettings(trust_anchors=(folder / "root.pem",), fetch=get is not None),
            accept_file_unseal=True,
            accepted_sandboxes=DEVELOPMENT_SANDBOXES,
        )
        if get is not None:
            monkeypatch.setattr(attester_parts, "get", get)

    @contextmanager
    def served(self, attester: Attester) -> Iterator[Served]:
        api_key = app.initialize(self.settings, attester=attester)
        with app.build(self.settings, attester=attester) as host, running(host.app) as url:
            yield Served(host=host, url=url, api_key=api_key)


@dataclass(frozen=True, kw_only=True)
class Served:
    host: app.Host
    url: str
    api_key: str

    @property
    def policy(self) -> AppraisalPolicy:
        return AppraisalPolicy.from_toml(policy_text(self.host))

    def client(self, policy: AppraisalPolicy | None = None) -> Client:
        return Client(
            tenant=SYSTEM_TENANT,
            policy=policy or self.policy,
            identity=ApiKey(self.api_key),
            transport=HttpTransport(self.url),
        )

    def works(self) -> tuple[str, ...]:
        """Use the host for something real; gives what the client checked."""
        with self.client() as operator:
            assert operator.call("tenant.create", {"tenant": "acme"})["api_key"].startswith("clk_")
            result = operator.attest()
        assert result.environment == "test"
        return result.checks


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def test_a_host_in_a_nitro_enclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = make.NitroIssuer()
    world = World(tmp_path, pem(issuer.root), monkeypatch, None)
    with world.served(NitroAttester(nsm(issuer))) as served:
        assert "COSE ES384 signature" in served.works()
        assert served.host.machine.format is Format.NITRO
        assert set(served.policy.tees[Format.NITRO].references[0].claims) == {"pcr0", "pcr1", "pcr2", "pcr8"}


def amd_answers(issuer: make.AmdIssuer, chip: bytes, asked: list[str]) -> Get:
    def get(address: str) -> tuple[bytes, Mapping[str, str]]:
        asked.append(address)
        if address.endswith("/cert_chain"):
            return pem(issuer.ask) + pem(issuer.ark), {}
        return (make.crl((issuer.ark, issuer.ark_key)) if address.endswith("/crl") else chip), {}

    return get


def test_a_host_on_sev_snp_fetches_and_staples_its_chip_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = make.AmdIssuer()
    chip = issuer.chip(tcb={1: 2, 2: 0, 3: 4, 8: 72, 9: 1}, hardware_id=b"\x11" * 8)
    asked: list[str] = []
    world = World(tmp_path, pem(issuer.ark), monkeypatch, amd_answers(issuer, chip, asked))
    with (
        configfs(
            tmp_path, "sev_guest", answer=lambda data, _level: (issuer.report(report_data=data), bytes(24))
        ) as root,
        world.served(TsmAttester(root)) as served,
    ):
        assert "certificate path to ARK-Turin" in served.works()
        assert served.policy.tees[Format.SEV_SNP].minimum["reported_tcb.microcode"] == 72
        assert all(address.startswith("https://kdsintf.amd.com/vcek/v1/Turin/") for address in asked)
        # The next start works without the vendor, from what was kept.
        monkeypatch.setattr(attester_parts, "get", unreachable)
        with app.build(world.settings, attester=TsmAttester(root)) as again:
            assert again.machine == served.host.machine


def unreachable(address: str) -> tuple[bytes, Mapping[str, str]]:
    raise UnavailableError(f"{address} does not answer")


def test_a_host_on_sev_snp_without_any_endorsement_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = make.AmdIssuer()
    world = World(tmp_path, pem(issuer.ark), monkeypatch, unreachable)
    with (
        configfs(
            tmp_path, "sev_guest", answer=lambda data, _level: (issuer.report(report_data=data), bytes(24))
        ) as root,
        pytest.raises(ConfigurationError, match="not authentic"),
    ):
        app.initialize(world.settings, attester=TsmAttester(root))
    assert not (tmp_path / "state/cloister.db").exists()


def test_a_host_on_tdx_staples_collateral(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = IntelIssuer()
    world = World(tmp_path, pem(issuer.root), monkeypatch, issuer.get)
    with (
        configfs(
            tmp_path, "tdx_guest", answer=lambda data, _level: (issuer.quote(data).ljust(8000, b"\0"), b"")
        ) as root,
        world.served(TsmAttester(root)) as served,
    ):
        checks = served.works()
        assert {"TCB status", "revocation", "tcb_status"} <= set(checks)
        assert served.policy.tees[Format.TDX].tcb_status == ("UpToDate",)


def test_a_host_with_a_pinned_tpm_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with software_tpm(tmp_path) as connect:
        key = tpm_provisioning.public_key(connect).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        world = World(tmp_path, key, monkeypatch, None)
        with world.served(tpm_attester(connect)) as served:
            assert "attestation key is the one the caller pinned" in served.works()


def test_a_host_on_google_cloud_uses_the_certificate_in_its_tpm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root_key, middle_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    root = make.certificate("EK/AK CA Root", root_key, authority=True)
    middle = make.certificate("EK/AK CA Intermediate", middle_key, (root, root_key), authority=True)
    address = "http://privateca-content-1.storage.googleapis.com/ca.crt"
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(address)
            )
        ]
    )
    asked: list[str] = []

    def get(wanted: str) -> tuple[bytes, Mapping[str, str]]:
        asked.append(wanted)
        return make.der(middle), {}

    with software_tpm(tmp_path) as connect:
        leaf = make.certificate(
            "instance",
            tpm_provisioning.public_key(connect),
            (middle, middle_key),
            authority=False,
            extra=[access],
        )
        tpm_provisioning.provision_google(connect, make.der(leaf))
        world = World(tmp_path, pem(root), monkeypatch, get)
        with world.served(tpm_attester(connect)) as served:
            assert "certificate path of the AK to the EK/AK root" in served.works()
    assert set(asked) == {address}


def test_a_host_on_azure_uses_key_and_report_in_its_tpm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = make.AmdIssuer("Milan")
    chip = issuer.chip(tcb={1: 4, 2: 0, 3: 24, 4: 0, 5: 0, 6: 0, 7: 0, 8: 219}, hardware_id=b"\x11" * 64)

    def report(key: rsa.RSAPublicKey) -> bytes:
        runtime = make.hcl_runtime(key)
        digest = hashlib.sha256(runtime).digest()
        tcb = bytes([4, 0, 0, 0, 0, 0, 24, 219])
        hardware = issuer.report(version=2, tcb=tcb, chip_id=b"\x11" * 64, report_data=digest)
        return make.hcl_report(2, hardware, runtime)

    asked: list[str] = []
    with software_tpm(tmp_path) as connect:
        tpm_provisioning.provision_azure(connect, report)
        world = World(tmp_path, pem(issuer.ark), monkeypatch, amd_answers(issuer, chip, asked))
        with world.served(tpm_attester(connect)) as served:
            checks = served.works()
            policy = served.policy
    assert {"attestation key named by the hardware evidence", "hardware that vouches for the TPM"} <= set(
        checks
    )
    claims = policy.tees[Format.AZURE_VTPM].references[0].claims
    assert claims["hardware.measurement"] == ("22" * 48,)
    assert any("/vcek/v1/Milan/" in address for address in asked)


def test_a_host_in_confidential_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make.TokenIssuer()

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        claims = make.confidential_space_claims(aud=request["audience"], eat_nonce=request["nonces"])
        return 200, service.pki_token(claims)

    world = World(tmp_path, pem(service.root), monkeypatch, None)
    path = tmp_path / "teeserver.sock"
    with (
        launcher(path, answer),
        world.served(ConfidentialSpaceAttester(path=path)) as served,
    ):
        assert "certificate path to the Confidential Space root" in served.works()
        assert served.policy.tees[Format.GCP_CONFIDENTIAL_SPACE].require["aud"] == (
            f"cloister:{served.host.deployment}",
        )


# --- what the composition refuses ----------------------------------------------------------------


@pytest.fixture
def nitro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, NitroAttester]:
    issuer = make.NitroIssuer()
    return World(tmp_path, pem(issuer.root), monkeypatch, None), NitroAttester(nsm(issuer))


def test_a_root_born_in_a_test_does_not_unseal_in_a_simulation(nitro: tuple[World, NitroAttester]) -> None:
    world, attester = nitro
    app.initialize(world.settings, attester=attester)
    simulated = HostSettings(
        state=world.settings.state,
        attester=AttesterSettings(name="simulated"),
        accept_file_unseal=True,
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
    )
    with pytest.raises(ConfigurationError, match="generated in the environment 'test'"), app.build(simulated):
        pass


def test_an_attester_under_another_root_is_noticed_before_the_root_key_is_made(
    nitro: tuple[World, NitroAttester],
) -> None:
    world, _ = nitro
    foreign = NitroAttester(nsm(make.NitroIssuer()))
    with pytest.raises(ConfigurationError, match="not authentic"):
        app.initialize(world.settings, attester=foreign)
    assert not (world.settings.state / "unseal.key").exists()


def test_a_host_in_a_tee_starts_from_its_operators_shares_without_exceptions(
    nitro: tuple[World, NitroAttester], tmp_path: Path
) -> None:
    require.module("shamir_mnemonic")
    world, attester = nitro
    split = ShamirSettings(shares=3, threshold=2, folder=tmp_path / "shares")
    settings = replace(world.settings, accept_file_unseal=False, unseal="shamir", shamir=split)
    api_key = app.initialize(settings, attester=attester)
    started = replace(settings, shamir=ShamirSettings(files=split.paths[1:]))
    with app.build(started, attester=attester) as host, running(host.app) as url:
        served = Served(host=host, url=url, api_key=api_key)
        assert served.policy.config["unseal"] == ("shamir",)
        assert served.works()


def test_file_unseal_outside_a_simulation_has_to_be_accepted_by_name(
    nitro: tuple[World, NitroAttester],
) -> None:
    world, attester = nitro
    settings = HostSettings(state=world.settings.state, attester=world.settings.attester)
    with pytest.raises(ConfigurationError, match="for simulations"):
        app.initialize(settings, attester=attester)
    assert not (settings.state / "unseal.key").exists()


def test_a_policy_of_another_image_sends_nothing(nitro: tuple[World, NitroAttester]) -> None:
    world, attester = nitro
    with world.served(attester) as served:
        text = policy_text(served.host)
        other = re.sub(r'"pcr0" = "\w+"', '"pcr0" = "' + "ab" * 48 + '"', text)
        assert other != text
        with (
            served.client(AppraisalPolicy.from_toml(other)) as operator,
            pytest.raises(AppraisalError, match="pcr0"),
        ):
            operator.call("tenant.create", {"tenant": "acme"})


def test_a_production_policy_refuses_a_host_under_a_test_root(nitro: tuple[World, NitroAttester]) -> None:
    world, attester = nitro
    with world.served(attester) as served:
        text = re.sub(r"trust_anchors = .*\n", "", policy_text(served.host)).replace('"test"', '"hardware"')
        with (
            served.client(AppraisalPolicy.from_toml(text)) as operator,
            pytest.raises(EvidenceError, match="no trust anchor"),
        ):
            operator.attest()


def test_readiness_says_where_the_root_was_born(nitro: tuple[World, NitroAttester]) -> None:
    world, attester = nitro
    with world.served(attester) as served, urllib.request.urlopen(f"{served.url}/readyz") as response:
        assert json.load(response)["root"]["environment"] == "test"


# --- the commands --------------------------------------------------------------------------------


def host_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    cloister = Path(sys.executable).with_name("cloister")
    return subprocess.run(
        [cloister, "host", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_host_is_initialised_and_described_on_a_tpm(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as connect:
        key = tpm_provisioning.public_key(connect)
        (tmp_path / "ak.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        done = host_command(tmp_path, "evidence", "--tpm", "tpm.sock", "--attester", "tpm")
        assert "--format tpm" in done.stdout
        assert json.loads((tmp_path / "evidence.bin").read_bytes())["v"] == 1
        options = ("--attester", "tpm", "--tpm", "tpm.sock", "--attester-trust-anchor", "ak.pem")
        done = host_command(tmp_path, "init", *options, "--accept-file-unseal")
        assert done.returncode == 0, done.stderr
        done = host_command(tmp_path, "policy", *options, "--accept-file-unseal")
        assert done.returncode == 0, done.stderr
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_text())
    assert policy.environment == "test"
    assert policy.deployment == done.stdout.split()[1]
    assert set(policy.tees[Format.TPM].references[0].claims) == {"pcr4", "pcr7", "pcr8", "pcr9", "pcr11"}


def test_without_a_tee_simulation_has_to_be_named(tmp_path: Path) -> None:
    done = host_command(tmp_path, "init", "--attester", "nitro")
    assert done.returncode != 0
    assert "does not answer" in done.stderr
    assert not (tmp_path / ".cloister/unseal.key").exists()
    assert host_command(tmp_path, "init", "--attester", "simulated").returncode == 0
