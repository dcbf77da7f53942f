"""Who a workload on AWS is: tokens from STS (moto), API keys from Secrets Manager and SSM (moto)."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from cloister.config import Settings
from cloister.envelope.process import drop_data_keys
from cloister.errors import ConfigurationError, IdentityError, UnavailableError
from cloister.identity import ApiKey, identity_from
from cloister.protocol.exchange import RequestBinding
from cloister_aws.identity import AwsIdentity, StoredApiKey
from local_cloud.s3 import LocalS3
from local_cloud.web_identity import OutboundFederation, claims_of

DEPLOYMENT = "D" * 43
BINDING = RequestBinding(kid="r", jti="j", body={})
API_KEY = "clk_a_" + "s" * 43


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def cloud():
    with LocalS3() as cloud:
        yield cloud


@pytest.fixture
def environment(cloud, monkeypatch):
    for name, value in cloud.environment.items():
        monkeypatch.setitem(os.environ, name, value)


@pytest.fixture
def federation(cloud):
    with OutboundFederation() as federation:
        client = cloud.session().client("iam", endpoint_url=cloud.url)
        client.enable_outbound_web_identity_federation()
        yield federation


def credential(identity, deployment=DEPLOYMENT):
    return identity.credential(deployment=deployment, request=BINDING)


# --- tokens ---


def test_a_token_of_the_role_is_for_one_deployment(environment, federation):
    found = credential(AwsIdentity())
    assert found["type"] == "oidc"
    claims = claims_of(found["value"])
    assert (claims["aud"], claims["sub"]) == (f"cloister:{DEPLOYMENT}", federation.role)
    assert claims["exp"] - claims["iat"] == 300


def test_a_token_is_used_until_it_nears_its_end(environment, federation):
    import time

    clock = Clock(time.time())
    identity = AwsIdentity(clock=clock)
    first = credential(identity)
    clock.now += 230
    assert credential(identity) == first
    clock.now += 20
    assert credential(identity) != first
    assert federation.issued == 2


def test_another_deployment_gets_a_token_of_its_own(environment, federation):
    identity = AwsIdentity()
    credential(identity)
    assert claims_of(credential(identity, "E" * 43)["value"])["aud"] == "cloister:" + "E" * 43


def test_a_snapshot_holds_no_token(environment, federation):
    identity = AwsIdentity()
    first = credential(identity)
    drop_data_keys()
    assert not identity._tokens._kept
    assert credential(identity) != first


def test_an_account_that_has_not_opted_in_is_told_what_to_do(environment):
    with OutboundFederation(), pytest.raises(IdentityError) as refusal:
        credential(AwsIdentity())
    assert "enable-outbound-web-identity-federation" in refusal.value.hint
    assert not refusal.value.retryable


def test_the_users_own_session_and_client_are_taken(cloud, federation):
    client = cloud.session().client("sts", endpoint_url=cloud.url)
    assert credential(AwsIdentity(client=client))["type"] == "oidc"


def test_the_global_endpoint_is_never_asked(monkeypatch, environment):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    with pytest.raises(ConfigurationError, match="global"):
        credential(AwsIdentity())
    monkeypatch.delenv("AWS_STS_REGIONAL_ENDPOINTS")
    assert AwsIdentity()._connect().meta.endpoint_url == "https://sts.us-east-1.amazonaws.com"


class Failing:
    """The edge of boto3."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def get_web_identity_token(self, **_):
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def client_error(code):
    response = {"Error": {"Code": code, "Message": "arn:aws:iam::123456789012:role/secret"}}
    return ClientError(response, "GetWebIdentityToken")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error("AccessDenied"), IdentityError),
        (client_error("ExpiredToken"), IdentityError),
        (client_error("JWTPayloadSizeExceededException"), IdentityError),
        (client_error("Throttling"), UnavailableError),
        (client_error("InternalFailure"), UnavailableError),
        (EndpointConnectionError(endpoint_url="https://sts.eu-west-1.amazonaws.com"), UnavailableError),
    ],
    ids=repr,
)
def test_what_aws_answers_becomes_one_of_our_errors_without_names(error, expected):
    with pytest.raises(expected) as failure:
        credential(AwsIdentity(client=Failing(error)))
    assert "123456789012" not in str(failure.value) + failure.value.hint
    assert failure.value.__context__ is None


def test_a_boto3_that_does_not_know_the_operation_is_told():
    with pytest.raises(ConfigurationError, match="boto3"):
        credential(AwsIdentity(client=SimpleNamespace()))


def test_while_sts_does_not_answer_a_token_is_used_to_its_end():
    from datetime import UTC, datetime

    answer = {"WebIdentityToken": "a.b.c", "Expiration": datetime.fromtimestamp(300, UTC)}
    clock = Clock()
    identity = AwsIdentity(client=Failing(answer, client_error("Throttling")), clock=clock)
    for now in (0, 250, 294):
        clock.now = now
        assert credential(identity)["value"] == "a.b.c"
    clock.now = 296
    with pytest.raises(UnavailableError):
        credential(identity)


def test_a_workload_without_credentials_is_told(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(IdentityError, match="credentials"):
        credential(AwsIdentity())


# --- API keys kept in AWS ---


@pytest.fixture
def vault(cloud, environment):
    return cloud.session().client("secretsmanager", endpoint_url=cloud.url)


@pytest.fixture
def secret(vault):
    arn = vault.create_secret(Name=f"cloister-{os.urandom(4).hex()}", SecretString=API_KEY + "\n")["ARN"]
    yield arn
    vault.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


def test_a_key_comes_from_secrets_manager(secret):
    assert credential(StoredApiKey(secret)) == {"type": "api-key", "value": API_KEY}


def test_a_key_comes_from_an_encrypted_parameter(cloud, environment):
    ssm = cloud.session().client("ssm", endpoint_url=cloud.url)
    ssm.put_parameter(Name="/cloister/forecast", Value=API_KEY, Type="SecureString")
    arn = ssm.get_parameter(Name="/cloister/forecast")["Parameter"]["ARN"]
    assert credential(StoredApiKey(arn))["value"] == API_KEY


def test_a_rotated_key_comes_in(vault, secret):
    clock = Clock()
    identity = StoredApiKey(secret, clock=clock)
    credential(identity)
    vault.put_secret_value(SecretId=secret, SecretString=API_KEY + "t")
    clock.now = 299
    assert credential(identity)["value"] == API_KEY
    clock.now = 301
    assert credential(identity)["value"] == API_KEY + "t"


def test_a_secret_that_is_no_key_is_refused_and_not_shown(vault, secret):
    vault.put_secret_value(SecretId=secret, SecretString="hunter2")
    with pytest.raises(ConfigurationError) as refusal:
        credential(StoredApiKey(secret))
    assert "hunter2" not in str(refusal.value)


def test_a_secret_that_is_not_there_is_told(environment, secret):
    with pytest.raises(IdentityError, match="no such secret"):
        credential(StoredApiKey(secret[:-3] + "xyz"))


@pytest.mark.parametrize(
    "arn", ["", "cloister", "arn:aws:s3:::bucket", "arn:aws:ssm::1:parameter/x", API_KEY]
)
def test_what_is_no_arn_of_a_secret_is_refused_and_not_shown(arn):
    with pytest.raises(ConfigurationError) as refusal:
        StoredApiKey(arn)
    assert API_KEY not in str(refusal.value)


def test_neither_shows_anything(secret):
    assert repr(AwsIdentity()) == "AwsIdentity(<hidden>)"
    identity = StoredApiKey(secret)
    credential(identity)
    assert API_KEY not in repr(identity) + repr(vars(identity))


# --- from the settings ---


def settings(**more):
    return Settings.load(environment={}, url="https://h.example", tenant="acme", policy="p.toml", **more)


def test_the_settings_name_the_identity(secret):
    assert isinstance(identity_from(settings(identity="aws")), AwsIdentity)
    assert isinstance(identity_from(settings(api_key_secret=secret)), StoredApiKey)


def test_a_file_goes_before_a_secret(tmp_path, secret):
    (tmp_path / "key").write_text(API_KEY)
    found = identity_from(settings(api_key_secret=secret, api_key_file=str(tmp_path / "key")))
    assert isinstance(found, ApiKey)


def test_a_secret_of_no_known_cloud_is_refused():
    with pytest.raises(ConfigurationError, match="CLOISTER_API_KEY_SECRET"):
        identity_from(settings(api_key_secret="vault:secret/x"))


def test_an_adapter_that_is_not_installed_is_told_and_none_is_loaded_before():
    program = (
        "import sys\nfrom cloister.config import Settings\nfrom cloister.identity import identity_from\n"
        "s = Settings.load(environment={}, url='https://h', tenant='a', policy='p', identity='aws')\n"
        "assert not any(m.startswith('cloister_aws') for m in sys.modules)\n"
        "sys.modules['cloister_aws'] = None\n"
        "try: identity_from(s)\nexcept Exception as e: print(type(e).__name__, e.hint)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ConfigurationError pip install 'cloister[aws]'"
