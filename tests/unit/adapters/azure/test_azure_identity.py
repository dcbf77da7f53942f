"""Who a workload on Azure is: managed identities at both endpoints, API keys in Key Vault."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import rest
from cloister.config import Settings
from cloister.envelope.process import drop_data_keys
from cloister.errors import ConfigurationError, IdentityError, UnavailableError
from cloister.identity import identity_from
from cloister.protocol.exchange import RequestBinding
from cloister_azure import managed
from cloister_azure.identity import AzureIdentity, StoredApiKey
from local_cloud.entra_identity import EntraIdentity
from local_cloud.http_server import Response, json_response
from local_cloud.web_identity import claims_of

DEPLOYMENT = "D" * 43
BINDING = RequestBinding(kid="r", jti="j", body={})
API_KEY = "clk_a_" + "s" * 43
SECRET = "https://acme-vault.vault.azure.net/secrets/cloister-key"
VARIABLES = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_CLIENT_ID", "AZURE_POD_IDENTITY_AUTHORITY_HOST")


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def server():
    with EntraIdentity() as entra:
        yield entra


@pytest.fixture
def entra(server, monkeypatch):
    """Entra with an application for one deployment, and no way to it yet."""
    monkeypatch.setattr(rest, "PAUSE_SECONDS", 0.001)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    server.applications = {
        managed_audience(server),
        managed_audience(server, "E" * 43),
        "https://vault.azure.net",
    }
    server.user_assigned, server.secrets = {}, {"cloister-key": API_KEY}
    server.issued, server.first_answers = [], []
    return server


def managed_audience(entra, deployment=DEPLOYMENT):
    return entra.audience.format(deployment=deployment)


@pytest.fixture(params=["app service", "machine"])
def endpoint(entra, request, monkeypatch):
    """Either endpoint of managed identities."""
    variables = entra.environment if request.param == "app service" else entra.machine
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return entra


@pytest.fixture
def functions(entra, monkeypatch):
    for name, value in entra.environment.items():
        monkeypatch.setenv(name, value)
    return entra


def identity(entra, **options):
    return AzureIdentity(audience=entra.audience, **options)


def credential(identity_, deployment=DEPLOYMENT):
    return identity_.credential(deployment=deployment, request=BINDING)


# --- tokens ---


def test_a_token_of_the_identity_is_for_one_deployment(endpoint):
    found = credential(identity(endpoint))
    assert found["type"] == "oidc"
    claims = claims_of(found["value"])
    assert claims["aud"] == f"api://{endpoint.tenant}/{DEPLOYMENT}"
    assert (claims["sub"], claims["oid"]) == (endpoint.object_id, endpoint.object_id)
    assert claims["xms_mirid"] == endpoint.resource_id


def test_a_user_assigned_identity_is_named(endpoint, monkeypatch):
    endpoint.user_assigned = {"client-1": "object-1", "client-2": "object-2"}
    assert claims_of(credential(identity(endpoint, client_id="client-1"))["value"])["oid"] == "object-1"
    monkeypatch.setenv("AZURE_CLIENT_ID", "client-2")
    assert claims_of(credential(identity(endpoint))["value"])["oid"] == "object-2"


def test_an_identity_that_is_not_assigned_is_told_without_its_name(endpoint):
    with pytest.raises(IdentityError) as refused:
        credential(identity(endpoint, client_id="nobody"))
    assert "AZURE_CLIENT_ID" in refused.value.hint
    assert "nobody" not in str(refused.value)


def test_a_token_is_used_until_it_nears_its_end(functions):
    clock = Clock(time.time())
    used = identity(functions, clock=clock)
    first = credential(used)
    clock.now += 86_000
    assert credential(used) == first
    clock.now += 400
    assert credential(used) != first
    assert len(functions.issued) == 2


def test_while_azure_does_not_answer_a_token_serves_to_its_end_and_no_longer(functions):
    clock = Clock(time.time())
    used = identity(functions, clock=clock)
    first = credential(used)
    clock.now += 86_360
    functions.first_answers = [Response(status=503)] * 3
    assert credential(used) == first
    clock.now += 60
    functions.first_answers = [Response(status=503)] * 3
    with pytest.raises(UnavailableError):
        credential(used)


def test_another_deployment_gets_a_token_of_its_own(functions):
    used = identity(functions)
    credential(used)
    assert claims_of(credential(used, "E" * 43)["value"])["aud"] == managed_audience(functions, "E" * 43)


def test_a_copy_of_the_process_holds_no_token(functions):
    used = identity(functions)
    credential(used)
    drop_data_keys()
    assert not used._tokens._kept
    credential(used)
    assert len(functions.issued) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_tried_again(functions, status):
    functions.first_answers = [Response(status=status)]
    assert credential(identity(functions))["type"] == "oidc"


@pytest.mark.parametrize("status", [404, 410])
def test_a_metadata_service_that_starts_is_unavailable(functions, status):
    functions.first_answers = [Response(status=status)]
    with pytest.raises(UnavailableError):
        credential(identity(functions))


def test_a_deployment_without_an_application_is_told_so_without_names(endpoint):
    with pytest.raises(IdentityError, match="Application ID URI") as refused:
        credential(identity(endpoint), "F" * 43)
    assert "CLOISTER_TOKEN_AUDIENCE" in refused.value.hint
    assert "AADSTS" not in str(refused.value)
    assert endpoint.tenant not in str(refused.value)


def test_an_application_that_asks_for_assignment_is_told(functions):
    text = f"AADSTS501051: Application '{functions.client_id}' is not assigned to a role"
    functions.first_answers = [json_response({"message": text}, status=400)]
    with pytest.raises(IdentityError, match="does not let") as refused:
        credential(identity(functions))
    assert functions.client_id not in str(refused.value)


def test_a_wrong_header_is_refused(functions, monkeypatch):
    monkeypatch.setenv("IDENTITY_HEADER", "guessed")
    with pytest.raises(IdentityError):
        credential(identity(functions))


@pytest.mark.parametrize("header", [None, "", "a\nb"])
def test_an_endpoint_of_another_kind_is_told(functions, monkeypatch, header):
    monkeypatch.delenv("IDENTITY_HEADER")
    if header:
        monkeypatch.setenv("IDENTITY_HEADER", header)
    with pytest.raises(ConfigurationError, match="IDENTITY_HEADER"):
        credential(identity(functions))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"<html>",
        b"{}",
        b'{"access_token": 7}',
        b'{"access_token": ""}',
        b'{"access_token": "a\\nb"}',
    ],
    ids=["empty", "a list", "bytes", "HTML", "nothing in it", "a number", "no text", "two lines"],
)
def test_what_is_no_answer_is_not_sent(functions, body):
    functions.first_answers = [Response(body=body)]
    with pytest.raises(IdentityError):
        credential(identity(functions))


def test_a_token_for_another_audience_is_not_sent(functions):
    wrong = functions.token("https://management.azure.com/")
    functions.first_answers = [json_response({"access_token": wrong})]
    with pytest.raises(IdentityError, match="for this deployment"):
        credential(identity(functions))


@given(body=st.binary(max_size=80) | st.text(max_size=40).map(lambda t: json.dumps({"error": t}).encode()))
def test_any_bytes_are_read_or_refused(body):
    assert isinstance(managed._read(body), dict)
    assert isinstance(managed._refusal(400, managed._read(body)), IdentityError)


@pytest.mark.parametrize(
    "audience",
    [
        "",
        "api://tenant",
        "api://tenant/" + DEPLOYMENT,
        "{deployment}",
        "http://tenant/{deployment}",
        "cloister:{deployment}",
        "api://t/{deployment}&resource=https://vault.azure.net",
        "api://t/{deployment}/{deployment}",
        "api://t/{name}",
    ],
)
def test_an_audience_that_does_not_name_the_deployment_is_refused(audience):
    with pytest.raises(ConfigurationError, match="CLOISTER_TOKEN_AUDIENCE"):
        AzureIdentity(audience=audience)


# --- API keys in Key Vault ---


def stored(entra, url=SECRET, **options):
    return StoredApiKey(url, endpoint=entra.url, **options)


def test_a_key_comes_from_key_vault(endpoint):
    assert credential(stored(endpoint)) == {"type": "api-key", "value": API_KEY}
    assert endpoint.issued == ["https://vault.azure.net"]


def test_a_version_of_the_secret_is_asked_for(functions):
    assert credential(stored(functions, f"{SECRET}/{'0a' * 16}"))["value"] == API_KEY


def test_a_rotated_key_comes_in(functions):
    clock = Clock()
    used = stored(functions, clock=clock)
    credential(used)
    functions.secrets["cloister-key"] = API_KEY + "t"
    clock.now = 299
    assert credential(used)["value"] == API_KEY
    clock.now = 301
    assert credential(used)["value"] == API_KEY + "t"


def test_a_secret_that_is_no_key_is_refused_and_not_shown(functions):
    functions.secrets["cloister-key"] = "hunter2"
    with pytest.raises(ConfigurationError) as refused:
        credential(stored(functions))
    assert "hunter2" not in str(refused.value)


def test_a_secret_that_is_not_there_is_told(functions):
    functions.secrets = {}
    with pytest.raises(IdentityError, match="no such secret"):
        credential(stored(functions))


def test_a_vault_that_refuses_is_told_with_the_role(functions):
    other = functions.token("https://management.azure.com/")
    functions.first_answers = [json_response({"access_token": other})]
    with pytest.raises(IdentityError, match="refused") as refused:
        credential(stored(functions))
    assert "Key Vault Secrets User" in refused.value.hint


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"value": 7}'])
def test_an_answer_of_the_vault_that_is_none_is_no_key(functions, body):
    token = functions.token("https://vault.azure.net")
    functions.first_answers = [json_response({"access_token": token}), Response(body=body)]
    with pytest.raises(UnavailableError, match="malformed"):
        credential(stored(functions))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/secrets/key",
        "https://acme.vault.azure.net.evil.example/secrets/key",
        "https://evil.example/acme.vault.azure.net/secrets/key",
        "https://user@acme.vault.azure.net/secrets/key",
        "http://acme.vault.azure.net/secrets/key",
        "https://acme.vault.azure.net:8443/secrets/key",
        "https://acme.vault.azure.net/keys/key",
        "https://acme.vault.azure.net/secrets/key?x=1",
        "https://acme.vault.azure.net/secrets/key/../other",
        API_KEY,
        "",
    ],
)
def test_a_token_goes_to_vaults_of_azure_alone(url):
    with pytest.raises(ConfigurationError) as refused:
        StoredApiKey(url)
    assert API_KEY not in str(refused.value)


def test_neither_shows_anything(functions):
    token_user, key_user = identity(functions), stored(functions)
    token = credential(token_user)["value"]
    credential(key_user)
    shown = repr(token_user) + repr(vars(token_user)) + repr(key_user) + repr(vars(key_user))
    assert token not in shown
    assert API_KEY not in shown


# --- from the settings ---


def settings(**more):
    return Settings.load(environment={}, url="https://h.example", tenant="acme", policy="p.toml", **more)


def test_the_settings_name_the_identity(functions):
    found = identity_from(settings(identity="azure", token_audience=functions.audience))
    assert credential(found)["type"] == "oidc"
    assert isinstance(identity_from(settings(api_key_secret=SECRET)), StoredApiKey)


def test_without_an_audience_the_identity_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="CLOISTER_TOKEN_AUDIENCE"):
        identity_from(settings(identity="azure"))
