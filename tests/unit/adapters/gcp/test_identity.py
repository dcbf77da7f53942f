"""Who a workload on Google Cloud is: metadata server, credentials in files, API keys in Secret Manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import rest
from cloister.config import Settings
from cloister.envelope.process import drop_data_keys
from cloister.errors import CloisterError, ConfigurationError, IdentityError, UnavailableError
from cloister.identity import identity_from
from cloister.protocol.exchange import RequestBinding
from cloister.workload import token_and_end
from cloister_gcp.identity import GcpIdentity, StoredApiKey
from local_cloud.google_identity import GoogleIdentity
from local_cloud.http_server import Response
from local_cloud.web_identity import claims_of

DEPLOYMENT = "D" * 43
BINDING = RequestBinding(kid="r", jti="j", body={})
API_KEY = "clk_a_" + "s" * 43
SECRET = "projects/acme-prod/secrets/cloister-key"


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def google():
    with GoogleIdentity() as google:
        yield google


@pytest.fixture
def machine(google, monkeypatch, tmp_path):
    """A machine of Google's, with a metadata server and no files."""
    monkeypatch.setattr(rest, "PAUSE_SECONDS", 0.001)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    for name, value in google.environment.items():
        monkeypatch.setenv(name, value)
    return google


@pytest.fixture
def elsewhere(machine, monkeypatch):
    """A machine without a metadata server."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return machine


def credential(identity, deployment=DEPLOYMENT):
    return identity.credential(deployment=deployment, request=BINDING)


# --- the metadata server ---


def test_a_token_of_the_service_account_is_for_one_deployment(machine):
    found = credential(GcpIdentity())
    assert found["type"] == "oidc"
    claims = claims_of(found["value"])
    assert (claims["aud"], claims["sub"]) == (f"cloister:{DEPLOYMENT}", machine.subject)
    assert (claims["email"], claims["email_verified"]) == (machine.account, True)
    assert claims["google"]["compute_engine"]["project_id"] == "acme-prod"


def test_a_token_is_used_until_it_nears_its_end(machine):
    clock = Clock(time.time())
    identity = GcpIdentity(clock=clock)
    credential(identity)
    clock.now += 3500
    credential(identity)
    assert len(machine.issued) == 1
    clock.now += 60
    credential(identity)
    assert len(machine.issued) == 2


def test_while_google_does_not_answer_a_token_serves_to_its_end_and_no_longer(machine):
    clock = Clock(time.time())
    identity = GcpIdentity(clock=clock)
    first = credential(identity)
    clock.now += 3570
    machine.first_answers = [Response(status=503)] * 3
    assert credential(identity) == first
    clock.now += 60
    machine.first_answers = [Response(status=503)] * 3
    with pytest.raises(UnavailableError):
        credential(identity)


def test_another_deployment_gets_a_token_of_its_own(machine):
    identity = GcpIdentity()
    credential(identity)
    assert claims_of(credential(identity, "E" * 43)["value"])["aud"] == "cloister:" + "E" * 43


def test_a_snapshot_holds_no_token(machine):
    identity = GcpIdentity()
    credential(identity)
    drop_data_keys()
    assert not identity._tokens._kept
    credential(identity)
    assert len(machine.issued) == 2


def test_what_passes_is_tried_again(machine):
    machine.first_answers = [Response(status=503), Response(status=429)]
    assert credential(GcpIdentity())["type"] == "oidc"


def test_a_workload_without_a_service_account_is_told_so(machine):
    machine.account = ""
    with pytest.raises(IdentityError, match="no service account"):
        credential(GcpIdentity())


def test_what_is_not_the_metadata_server_is_not_believed(machine):
    token = machine.token(f"cloister:{DEPLOYMENT}")
    machine.first_answers = [Response(body=token.encode())]
    with pytest.raises(UnavailableError, match="not Google's"):
        credential(GcpIdentity())


@pytest.mark.parametrize(
    "body",
    [b"", b"a.b.c", b"<html>", b"\xff", b"x" * 20_000],
    ids=["empty", "no JSON", "HTML", "bytes", "long"],
)
def test_what_is_no_token_is_not_sent(machine, body):
    machine.first_answers = [Response(body=body, headers={"Metadata-Flavor": "Google"})]
    with pytest.raises(IdentityError):
        credential(GcpIdentity())


def test_a_token_for_another_audience_is_not_sent(machine):
    token = machine.token("https://somebody.example")
    machine.first_answers = [Response(body=token.encode(), headers={"Metadata-Flavor": "Google"})]
    with pytest.raises(IdentityError, match="for this deployment"):
        credential(GcpIdentity())


@given(text=st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{0,9}(\.[A-Za-z0-9_-]{0,40}){0,4}"))
def test_any_text_is_a_token_or_refused(text):
    with pytest.raises(IdentityError):
        token_and_end(text, audience="a")


@pytest.mark.parametrize("host", ["metadata/x", "user@host", "a\nb"])
def test_a_metadata_host_that_says_more_is_refused(machine, monkeypatch, host):
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    with pytest.raises(ConfigurationError):
        credential(GcpIdentity())


# --- credentials in files ---


def test_a_service_account_key_gives_a_token(elsewhere, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(elsewhere.key_file(tmp_path / "key.json")))
    claims = claims_of(credential(GcpIdentity())["value"])
    assert (claims["aud"], claims["sub"]) == (f"cloister:{DEPLOYMENT}", elsewhere.subject)


def test_credentials_that_impersonate_give_a_token(elsewhere, monkeypatch, tmp_path):
    from google.auth import iam

    monkeypatch.setattr(
        iam, "_IAM_IDTOKEN_ENDPOINT", elsewhere.url + "/v1/projects/-/serviceAccounts/{}:generateIdToken"
    )
    # As gcloud writes it, but for the source, which is a person there.
    source = elsewhere.key_file(tmp_path / "key.json")
    path = elsewhere.impersonation_file(tmp_path / "impersonate.json", source)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    claims = claims_of(credential(GcpIdentity())["value"])
    assert (claims["aud"], claims["email"]) == (f"cloister:{DEPLOYMENT}", elsewhere.account)


def test_credentials_of_the_environment_come_before_the_machine(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(IdentityError, match="no Google credentials"):
        credential(GcpIdentity())


def test_credentials_that_gcloud_keeps_are_found(elsewhere, tmp_path):
    (tmp_path / "gcloud").mkdir()
    elsewhere.key_file(tmp_path / "gcloud" / "application_default_credentials.json")
    assert claims_of(credential(GcpIdentity())["value"])["sub"] == elsewhere.subject


def test_a_persons_own_credentials_are_refused_with_what_to_do(elsewhere, monkeypatch, tmp_path):
    path = tmp_path / "me.json"
    person = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    path.write_text(json.dumps(person))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(IdentityError, match="another audience") as refusal:
        credential(GcpIdentity())
    assert "--impersonate-service-account" in refusal.value.hint


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"type": "service_account"}', '{"type": "new"}'])
def test_a_file_that_holds_no_credentials_is_refused_without_its_content(
    elsewhere, monkeypatch, tmp_path, content
):
    path = tmp_path / "key.json"
    path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(IdentityError) as refusal:
        credential(GcpIdentity())
    assert refusal.value.__cause__ is None
    assert str(tmp_path) not in str(refusal.value)


def test_a_key_that_google_refuses_is_an_identity_error(elsewhere, monkeypatch, tmp_path):
    path = elsewhere.key_file(tmp_path / "key.json")
    with GoogleIdentity() as other:
        document = json.loads(path.read_text()) | {"token_uri": f"{other.url}/oauth/token"}
        path.write_text(json.dumps(document))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with pytest.raises(IdentityError, match="no token"):
            credential(GcpIdentity())


def test_with_neither_it_says_what_there_is(elsewhere):
    with pytest.raises(IdentityError, match="no Google credentials") as refusal:
        credential(GcpIdentity())
    assert "GOOGLE_APPLICATION_CREDENTIALS" in refusal.value.hint


def test_the_users_own_credentials_are_taken(elsewhere, tmp_path):
    from google.oauth2 import service_account

    own = service_account.Credentials.from_service_account_file(elsewhere.key_file(tmp_path / "key.json"))
    assert claims_of(credential(GcpIdentity(credentials=own))["value"])["sub"] == elsewhere.subject


# --- API keys in Secret Manager ---


@pytest.mark.parametrize("name", [SECRET, "projects/acme-prod/locations/europe-west3/secrets/cloister-key"])
def test_the_key_in_secret_manager_is_the_credential(machine, name):
    machine.secrets[name] = API_KEY + "\n"
    assert credential(StoredApiKey(name)) == {"type": "api-key", "value": API_KEY}


def test_it_is_read_by_a_service_account_key_too(elsewhere, monkeypatch, tmp_path):
    elsewhere.secrets[SECRET] = API_KEY
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(elsewhere.key_file(tmp_path / "key.json")))
    assert credential(StoredApiKey(SECRET))["value"] == API_KEY


def test_a_rotated_key_comes_in_after_some_minutes(machine):
    clock = Clock()
    machine.secrets[SECRET] = API_KEY
    identity = StoredApiKey(SECRET, clock=clock)
    credential(identity)
    machine.secrets[SECRET] = "clk_b_" + "t" * 43
    assert credential(identity)["value"] == API_KEY
    clock.now += 301
    assert credential(identity)["value"] != API_KEY


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(status=403), IdentityError),
        (Response(status=404), IdentityError),
        (Response(status=400), IdentityError),
        (Response(status=418), IdentityError),
        (Response(status=302, headers={"Location": "https://evil.example"}), IdentityError),
        (Response(body=b"{"), UnavailableError),
        (Response(body=b'{"payload": {"data": "%%%"}}'), UnavailableError),
        (Response(body=b'{"payload": {"data": "bm8ga2V5"}}'), ConfigurationError),
        (Response(body=b" " * 300_000), UnavailableError),
    ],
    ids=["denied", "absent", "disabled", "other", "redirect", "no JSON", "no base64", "no key", "long"],
)
def test_what_secret_manager_refuses_is_told_without_its_name(machine, answer, error):
    identity = StoredApiKey(SECRET)
    identity._account._found()
    machine.secrets[SECRET] = API_KEY
    machine.first_answers = [_metadata(machine), answer]
    with pytest.raises(error) as refusal:
        credential(identity)
    assert "acme-prod" not in str(refusal.value)


def _metadata(google):
    body = json.dumps({"access_token": google._access_token}).encode()
    return Response(body=body, headers={"Metadata-Flavor": "Google"})


@pytest.mark.parametrize(
    "name",
    [
        "cloister-key",
        "projects/p/secrets/",
        "projects/../secrets/x",
        "projects/p/secrets/x/versions/latest:access?x",
        "projects/p/secrets/x\r\nHost: evil",
    ],
)
def test_a_name_that_is_no_secret_is_refused(name):
    with pytest.raises(ConfigurationError):
        StoredApiKey(name)


@pytest.mark.parametrize("endpoint", ["http://secrets.example", "ftp://127.0.0.1", "secretmanager"])
def test_an_access_token_is_sent_to_no_endpoint_in_the_clear(machine, monkeypatch, endpoint):
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", endpoint)
    with pytest.raises(ConfigurationError):
        credential(StoredApiKey(SECRET))


# --- settings, and what is loaded ---


def settings(**changes):
    values = {"url": "https://h.example", "tenant": "t", "policy": "p", **changes}
    return Settings.load(environment={}, **values)


def test_the_settings_lead_here():
    assert isinstance(identity_from(settings(identity="gcp")), GcpIdentity)
    assert isinstance(identity_from(settings(api_key_secret=SECRET)), StoredApiKey)


def test_nothing_of_an_identity_is_printed(machine):
    machine.secrets[SECRET] = API_KEY
    for identity in (GcpIdentity(), StoredApiKey(SECRET)):
        credential(identity)
        assert repr(identity) == f"{type(identity).__name__}(<hidden>)"


def test_on_a_machine_of_googles_no_library_is_loaded(machine):
    program = (
        "import sys; from cloister_gcp.identity import GcpIdentity;"
        "from cloister.protocol.exchange import RequestBinding;"
        "binding = RequestBinding(kid='r', jti='j', body={});"
        "GcpIdentity().credential(deployment='D' * 43, request=binding);"
        "assert not {'google.auth', 'requests', 'flask'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ), timeout=120)


def test_without_google_auth_it_says_what_to_install(elsewhere, monkeypatch, tmp_path):
    path = elsewhere.key_file(tmp_path / "key.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(CloisterError, match="google-auth is not installed"):
        credential(GcpIdentity())


# --- the double is what Google's own libraries take for Google ---


def test_googles_own_libraries_take_the_double_for_google(machine):
    machine.secrets[SECRET] = API_KEY
    program = f"""
import google.auth
from google.auth.transport.requests import Request
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)
from google.oauth2 import id_token

assert id_token.fetch_id_token(Request(), "https://x.example").count(".") == 2
credentials, _ = google.auth.default()
transport = SecretManagerServiceRestTransport(
    host="{machine.host}", url_scheme="http", credentials=credentials
)
client = SecretManagerServiceClient(transport=transport)
answer = client.access_secret_version(name="{SECRET}/versions/latest")
print(answer.payload.data.decode())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == API_KEY
    assert "https://x.example" in machine.issued
