"""The root key is wrapped by a cloud's key management service; its real client asks a double of it."""

from __future__ import annotations

import base64
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from cloister.attestation.policy import AppraisalPolicy
from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister_host._cli import app as host_command
from cloister_host.app import build, initialize
from cloister_host.attester import probing
from cloister_host.attester.nitro import NitroAttester
from cloister_host.attester.parts import build_attester
from cloister_host.attester.settings import AttesterSettings
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from cloister_host.unseal.aws_kms import AwsKms
from cloister_host.unseal.azure_keyvault import AzureKeyVault
from cloister_host.unseal.choose import open_unseal
from cloister_host.unseal.gcp_kms import GcpKms
from cloister_host.unseal.kms import DataKeys, KmsUnseal
from cloister_host.unseal.settings import KmsSettings
from cloister_host.unseal.wrapped import Wrapped
from support import evidence_builders as make
from support import kms_doubles as doubles
from support import require
from support.documents import DOCS
from support.kms_doubles import AwsDouble, AzureDouble, GoogleDouble
from support.tee_doubles import nsm

PLACE = "deployment/1"
ROOT = b"a root key and all that goes with it"
PCR0 = bytes([1]) * 48  # as the builder of documents has it


@dataclass
class Service:
    """A service's double, and what opens its real client."""

    name: str
    double: Any
    settings: KmsSettings
    connect: Callable[[KmsSettings], DataKeys]

    def unseal(self, settings: KmsSettings | None = None) -> KmsUnseal:
        return KmsUnseal(self.connect(settings or self.settings))


@pytest.fixture
def issuer() -> make.NitroIssuer:
    return make.NitroIssuer()


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, issuer: make.NitroIssuer) -> Iterator[Service]:
    require.module("boto3")
    anchor = issuer.root.public_bytes(Encoding.PEM)
    with doubles.aws(tmp_path, monkeypatch, trust_anchor=anchor, at=make.AT, pcr0=PCR0) as double:
        settings = KmsSettings(key=doubles.AWS_KEY, endpoint=f"https://localhost:{double.server.port}")
        attester = NitroAttester(nsm(issuer))
        yield Service("aws-kms", double, settings, lambda named: AwsKms(named, attester))


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    require.module("google.cloud.kms", install="pip install google-cloud-kms")
    with doubles.google(tmp_path, monkeypatch) as double:
        settings = KmsSettings(key=doubles.GOOGLE_KEY, endpoint=f"https://localhost:{double.server.port}")
        yield Service("gcp-kms", double, settings, GcpKms)


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    require.module("azure.keyvault.keys", install="pip install azure-keyvault-keys azure-identity")
    with doubles.azure(tmp_path, monkeypatch) as double:
        yield Service("azure-keyvault", double, KmsSettings(key=double.kid), AzureKeyVault)


@pytest.fixture(params=["aws", "google", "azure"])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    return found


# --- each of them -----------------------------------------------------------------------------------


def test_what_was_wrapped_unwraps(service: Service) -> None:
    wrapped = service.unseal().wrap(ROOT, PLACE)
    assert ROOT not in wrapped
    assert service.unseal().unwrap(wrapped, PLACE) == ROOT
    assert service.unseal().name == service.name


def test_what_was_wrapped_for_one_place_does_not_unwrap_in_another(service: Service) -> None:
    wrapped = service.unseal().wrap(ROOT, PLACE)
    for place in ("deployment/2", "another/1", ""):
        with pytest.raises(ConfigurationError, match="does not unseal"):
            service.unseal().unwrap(wrapped, place)


def test_a_changed_byte_does_not_unwrap(service: Service) -> None:
    unseal = service.unseal()
    wrapped = unseal.wrap(ROOT, PLACE)
    found = Wrapped.parse(wrapped, provider=service.name)
    for position in (0, 5, len(wrapped) // 2, len(wrapped) - 20, len(wrapped) - 1):
        changed = bytearray(wrapped)
        changed[position] ^= 1
        with pytest.raises(CloisterError):
            unseal.unwrap(bytes(changed), PLACE)
    for handle in (b"", found.handle[:-1], found.handle + b"0", bytes(len(found.handle))):
        forged = msgspec.msgpack.encode(msgspec.structs.replace(found, handle=handle))
        with pytest.raises(CloisterError):
            unseal.unwrap(forged, PLACE)


def test_another_key_is_told_which_one_sealed(service: Service) -> None:
    wrapped = service.unseal().wrap(ROOT, PLACE)
    found = Wrapped.parse(wrapped, provider=service.name)
    other = msgspec.msgpack.encode(msgspec.structs.replace(found, key="another"))
    with pytest.raises(ConfigurationError, match="kms-key=another"):
        service.unseal().unwrap(other, PLACE)


def test_a_key_that_can_be_used_is_not_destroyed(service: Service) -> None:
    unseal = service.unseal()
    wrapped = unseal.wrap(ROOT, PLACE)
    with pytest.raises(ConfigurationError):
        unseal.destroy(wrapped, PLACE)
    assert unseal.unwrap(wrapped, PLACE) == ROOT


GONE = {
    "aws-kms": ("PendingDeletion", ""),
    "gcp-kms": ("DESTROY_SCHEDULED", "DESTROYED"),
    "azure-keyvault": ("deleted", "purged"),
}


def test_only_a_key_that_cannot_come_back_is_destroyed(service: Service) -> None:
    unseal = service.unseal()
    wrapped = unseal.wrap(ROOT, PLACE)
    scheduled, gone = GONE[service.name]
    service.double.state = scheduled
    with pytest.raises(ConfigurationError, match=r"cancelled|brought back"):
        unseal.destroy(wrapped, PLACE)
    with pytest.raises(ConfigurationError, match="refuses"):
        unseal.unwrap(wrapped, PLACE)
    service.double.state = gone
    assert unseal.destroy(wrapped, PLACE)
    assert unseal.destroy(wrapped, PLACE), "twice does no harm"


BUSY: dict[str, Any] = {
    "aws-kms": "KMSInternalException",
    "gcp-kms": (503, "UNAVAILABLE"),
    "azure-keyvault": 503,
}


def test_a_service_that_is_busy_for_a_moment_is_asked_again(service: Service) -> None:
    wrapped = service.unseal().wrap(ROOT, PLACE)
    service.double.failing = [BUSY[service.name]]
    assert service.unseal().unwrap(wrapped, PLACE) == ROOT
    assert not service.double.failing


def test_a_service_that_stays_busy_is_told_and_can_be_tried_again(service: Service) -> None:
    wrapped = service.unseal().wrap(ROOT, PLACE)
    service.double.failing = [BUSY[service.name]] * 50
    hasty = KmsSettings(
        key=service.settings.key, endpoint=service.settings.endpoint, timeout_seconds=0.3, attempts=2
    )
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        service.unseal(hasty).unwrap(wrapped, PLACE)
    assert caught.value.retryable


REFUSING: dict[str, Any] = {
    "aws-kms": "AccessDeniedException",
    "gcp-kms": (403, "PERMISSION_DENIED"),
    "azure-keyvault": 403,
}


def test_a_refusal_is_told_without_the_message_of_the_service(service: Service) -> None:
    wrapped = service.unseal().wrap(ROOT, PLACE)
    service.double.failing = [REFUSING[service.name]] * 5
    with pytest.raises(ConfigurationError, match="refuses") as caught:
        service.unseal().unwrap(wrapped, PLACE)
    assert service.settings.key not in str(caught.value)


@pytest.mark.parametrize("key", ["", "alias/root", "x", "https://vault/keys/root", "projects/p"])
def test_a_key_has_to_be_named_in_full(service: Service, key: str) -> None:
    with pytest.raises(ConfigurationError, match="kms-key="):
        service.unseal(KmsSettings(key=key))


MODULES = {"aws-kms": "boto3", "gcp-kms": "google.cloud.kms", "azure-keyvault": "azure.keyvault.keys"}


def test_without_the_extra_the_error_names_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES[service.name], None)
    if service.name == "gcp-kms":
        monkeypatch.setattr(sys.modules["google.cloud"], "kms", None, raising=False)
        monkeypatch.delattr(sys.modules["google.cloud"], "kms", raising=False)
    extra = service.name.partition("-")[0]
    with pytest.raises(ConfigurationError, match=re.escape(f"cloister-host[{extra}]")):
        service.unseal()


# --- AWS --------------------------------------------------------------------------------------------


def test_every_call_brings_a_key_of_its_own_and_the_place(aws: Service) -> None:
    wrapped = aws.unseal().wrap(ROOT, PLACE)
    aws.unseal().unwrap(wrapped, PLACE)
    double: AwsDouble = aws.double
    assert [request["Operation"] for request in double.asked] == ["GenerateDataKey", "Decrypt"]
    assert all(request["EncryptionContext"] == {"cloister:root": PLACE} for request in double.asked)
    documents = [base64.b64decode(request["Recipient"]["AttestationDocument"]) for request in double.asked]
    assert doubles._public_key(documents[0]) != doubles._public_key(documents[1])


def test_another_image_gets_nothing(aws: Service) -> None:
    wrapped = aws.unseal().wrap(ROOT, PLACE)
    aws.double.pcr0 = bytes([9]) * 48
    for act in (lambda: aws.unseal().wrap(ROOT, PLACE), lambda: aws.unseal().unwrap(wrapped, PLACE)):
        with pytest.raises(ConfigurationError, match="attestation conditions"):
            act()


def test_a_document_under_another_root_gets_nothing(aws: Service) -> None:
    foreign = NitroAttester(nsm(make.NitroIssuer()))
    with pytest.raises(ConfigurationError, match="attestation document was refused"):
        KmsUnseal(AwsKms(aws.settings, foreign)).wrap(ROOT, PLACE)


def test_an_answer_in_the_clear_is_refused(aws: Service) -> None:
    """As by an emulator, or a proxy, that does not know attested recipients."""
    aws.double.answer = lambda found: {**found, "Plaintext": base64.b64encode(bytes(32)).decode()}
    with pytest.raises(ConfigurationError, match="in the clear"):
        aws.unseal().wrap(ROOT, PLACE)


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no secret": lambda found: {**found, "CiphertextForRecipient": None},
    "an empty one": lambda found: {**found, "CiphertextForRecipient": ""},
    "another form": lambda found: {**found, "CiphertextForRecipient": "MIIB"},
    "another key": lambda found: {**found, "KeyId": found["KeyId"][:-1] + "f"},
    "nothing wrapped": lambda found: {**found, "CiphertextBlob": None},
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_is_refused(
    aws: Service, answer: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    aws.double.answer = lambda found: {
        name: value for name, value in answer(found).items() if value is not None
    }
    with pytest.raises(CloisterError, match="AWS KMS"):
        aws.unseal().wrap(ROOT, PLACE)


def test_only_an_enclave_uses_it(tmp_path: Path) -> None:
    simulated = AttesterSettings(name="simulated")
    settings = HostSettings(state=Path(), unseal="aws-kms", kms=KmsSettings(key=doubles.AWS_KEY))
    with pytest.raises(ConfigurationError, match="Nitro enclaves alone"):
        open_unseal(settings, build_attester(simulated, state=tmp_path, clock=time.time))


def test_a_host_in_an_enclave_starts_from_kms_and_attests_that_it_did(
    aws: Service, issuer: make.NitroIssuer, tmp_path: Path
) -> None:
    anchor = tmp_path / "nitro.pem"
    anchor.write_bytes(issuer.root.public_bytes(Encoding.PEM))
    settings = HostSettings(
        state=tmp_path / "state",
        attester=AttesterSettings(trust_anchors=(anchor,)),
        unseal="aws-kms",
        kms=aws.settings,
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
    )
    attester = NitroAttester(nsm(issuer))

    def clock() -> float:
        return make.AT.timestamp()

    initialize(settings, attester=attester, clock=clock)
    with build(settings, attester=attester, clock=clock) as host:
        assert host.keysets.keyset().config["unseal"] == "aws-kms"
        deployment = host.deployment
    context = {request["EncryptionContext"]["cloister:root"] for request in aws.double.asked}
    assert context == {f"{deployment}/1"}
    aws.double.pcr0 = bytes([9]) * 48
    with (
        pytest.raises(ConfigurationError, match="AccessDenied"),
        build(settings, attester=attester, clock=clock),
    ):
        pytest.fail("it started")


# --- Google Cloud -----------------------------------------------------------------------------------


def test_the_workload_identity_is_exchanged_for_a_token(google: Service) -> None:
    google.unseal().wrap(ROOT, PLACE)
    double: GoogleDouble = google.double
    assert "subject_token=an+attestation+token" in double.exchanged[0]
    aad = base64.b64decode(double.asked[0]["additionalAuthenticatedData"])
    assert aad == f"cloister:root={PLACE}".encode()


GOOGLE_ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "what was sent was changed": lambda found: {**found, "verifiedPlaintextCrc32c": False},
    "the context was changed": lambda found: {**found, "verifiedAdditionalAuthenticatedDataCrc32c": False},
    "a wrong checksum": lambda found: {**found, "ciphertextCrc32c": "1"},
    "no checksum": lambda found: {**found, "ciphertextCrc32c": None},
    "another key": lambda found: {**found, "name": "projects/x/" + found["name"]},
}


@pytest.mark.parametrize("answer", GOOGLE_ANSWERS.values(), ids=GOOGLE_ANSWERS)
def test_what_was_changed_on_the_way_is_refused(
    google: Service, answer: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    google.double.answer = answer
    with pytest.raises(CloisterError, match="Cloud KMS"):
        google.unseal().wrap(ROOT, PLACE)


def test_a_data_key_that_was_changed_on_the_way_is_refused(google: Service) -> None:
    wrapped = google.unseal().wrap(ROOT, PLACE)
    google.double.answer = lambda found: {**found, "plaintext": base64.b64encode(bytes(32)).decode()}
    with pytest.raises(UnavailableError, match="changed on the way"):
        google.unseal().unwrap(wrapped, PLACE)


def test_without_credentials_the_error_says_so(
    google: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no Google Cloud credentials"):
        google.unseal()


# --- Azure ------------------------------------------------------------------------------------------


def test_the_managed_identity_gets_the_token(azure: Service) -> None:
    azure.unseal().wrap(ROOT, PLACE)
    double: AzureDouble = azure.double
    assert double.tokens == 1


def test_a_weak_key_is_refused(azure: Service) -> None:
    azure.double.bits = 1024
    azure.double.__post_init__()
    with pytest.raises(ConfigurationError, match="2048 bits"):
        KmsUnseal(AzureKeyVault(KmsSettings(key=azure.double.kid))).wrap(ROOT, PLACE)


# --- the commands -----------------------------------------------------------------------------------


def follow_the_guide(service: Service, *more: str) -> None:
    """Run the commands of the provider's section here, against the double."""
    section = (DOCS / "unseal.md").read_text(encoding="utf-8").split(f"## {service.name}\n")[1]
    [block] = re.findall(r"```sh\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    for line in block.splitlines():
        command = shlex.split(line.replace("https://vault.localhost/keys", service.settings.key[:-22]))
        assert command[:2] == ["cloister", "host"]
        if service.settings.endpoint:
            command += ["--unseal-option", f"kms-endpoint={service.settings.endpoint}"]
        done = CliRunner().invoke(host_command, [*command[2:], *more])
        assert done.exit_code == 0, f"{line}: {done.exception}"
    policy = AppraisalPolicy.from_toml(Path("policy.toml").read_text(encoding="utf-8"))
    assert policy.config["unseal"] == (service.name,)


@pytest.mark.parametrize("cloud", ["google", "azure"])
def test_the_commands_of_the_guide_do_what_it_says(
    cloud: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    follow_the_guide(request.getfixturevalue(cloud))


def test_the_commands_of_the_guide_do_what_it_says_in_an_enclave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The enclave of today: these commands read the clock of this machine."""
    require.module("boto3")
    now = datetime.now(UTC)
    monkeypatch.setattr(make, "AT", now)
    monkeypatch.setattr(make, "LIFE", (now - timedelta(hours=1), now + timedelta(hours=2)))
    issuer = make.NitroIssuer()
    anchor = issuer.root.public_bytes(Encoding.PEM)
    (tmp_path / "nitro.pem").write_bytes(anchor)
    attester = NitroAttester(nsm(issuer))
    monkeypatch.setattr(probing, "NitroAttester", lambda: attester)
    monkeypatch.chdir(tmp_path)
    with doubles.aws(tmp_path, monkeypatch, trust_anchor=anchor, at=now, pcr0=PCR0) as double:
        settings = KmsSettings(key=doubles.AWS_KEY, endpoint=f"https://localhost:{double.server.port}")
        service = Service("aws-kms", double, settings, lambda named: AwsKms(named, attester))
        follow_the_guide(service, "--attester-trust-anchor", "nitro.pem")
