"""A real host, a real client, sealed requests between them."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from cloister import AsyncClient, Client
from cloister.attestation import AppraisalPolicy
from cloister.client import policy_from
from cloister.envelope import seal_to
from cloister.errors import (
    AppraisalError,
    ConfigurationError,
    DeniedError,
    EvidenceError,
    IdentityError,
    OpenError,
    UnavailableError,
)
from cloister.identity import ApiKey
from cloister.protocol import seal_request
from cloister.transport.stdlib import HttpTransport
from cloister_host.testing import embedded_host

SSN = "078-05-1120"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def tenant(host):
    tenant = host.tenant()
    tenant.admin.call("key.create", {"key": "ssn", "purpose": "seal"})
    yield tenant
    tenant.admin.close()


@pytest.fixture
def client(tenant):
    rights = ("seal", "decrypt", "unwrap")
    with tenant.client("app", [(right, "key/ssn") for right in rights]) as client:
        yield client


def test_a_value_opens_under_its_context_only(client):
    sealed = client.seal(SSN, key="ssn", context={"member": "1"})
    assert client.open(sealed, context={"member": "1"}) == SSN
    for wrong in (None, {}, {"member": "2"}, {"member": "1", "x": "y"}):
        with pytest.raises(OpenError):
            client.open(sealed, context=wrong)


def test_every_type_comes_back_as_it_went(client):
    values = [b"\x00\xff", "text", {"a": [1, None, True]}, [1.5], 7, True, None]
    assert client.open_many(client.seal_many(values, key="ssn")) == values


def test_a_column_opens_in_the_client_with_one_unwrap(client):
    contexts = [{"row": str(i)} for i in range(50)]
    sealed = client.seal_many([SSN] * 50, key="ssn", contexts=contexts, key_context={"table": "members"})
    full = [{**context, "table": "members"} for context in contexts]
    assert client.open_column(sealed, contexts=full) == [SSN] * 50
    assert len({value.encrypted_key for value in sealed}) == 1


def test_values_sealed_before_a_rotation_still_open(tenant, client):
    old = client.seal(SSN, key="ssn")
    tenant.admin.call("key.rotate", {"key": "ssn"})
    client.forget()
    new = client.seal(SSN, key="ssn")
    assert (old.version, new.version) == (1, 2)
    assert client.open_many([old, new]) == [SSN, SSN]


def test_a_value_sealed_offline_to_the_public_half_opens(tenant):
    tenant.admin.call("key.create", {"key": "letters", "purpose": "seal-public"})
    with tenant.client("reader", [("decrypt", "key/letters"), ("key.read", "key/letters")]) as reader:
        public = reader.public_key("letters")
        sealed = seal_to("dear host", public.jwk, kid=public.kid, context={"to": "host"})
        assert reader.open(sealed, context={"to": "host"}) == "dear host"


def test_nothing_is_allowed_that_was_not_granted(tenant):
    with tenant.client("nobody") as nobody:
        with pytest.raises(DeniedError):
            nobody.seal(SSN, key="ssn")
        with pytest.raises(DeniedError):
            nobody.call("key.create", {"key": "x", "purpose": "seal"})
        with pytest.raises(DeniedError):
            nobody.call("audit.list", {})


def test_another_tenant_sees_no_difference_between_not_yours_and_not_there(host, tenant, client):
    sealed = client.seal(SSN, key="ssn")
    other = host.tenant()
    rights = [("decrypt", "key/ssn"), ("seal", "key/ssn")]
    with other.client("spy", rights) as spy:
        with pytest.raises(OpenError) as foreign:
            spy.open(sealed)
        absent = type(sealed)(sealed)
        with pytest.raises(OpenError) as missing:
            spy.open(absent)
    assert str(foreign.value.args[0]) == str(missing.value.args[0])
    other.admin.close()


def test_a_wrong_api_key_is_refused_under_seal(host, tenant, client):
    stranger = Client(
        tenant=tenant.name,
        policy=policy_from(host.policy),
        identity=ApiKey("clk_" + "a" * 16 + "_" + "b" * 43),
        transport=HttpTransport(host.url),
    )
    with stranger, pytest.raises(IdentityError):
        stranger.seal(SSN, key="ssn")


def test_a_disabled_principal_is_refused(tenant, client):
    client.seal(SSN, key="ssn")
    tenant.admin.call("principal.disable", {"principal": "app"})
    client.forget()
    with pytest.raises(IdentityError):
        client.seal(SSN, key="ssn")


def test_unknown_operations_and_members_are_refused(tenant):
    with pytest.raises(ConfigurationError, match="no such operation"):
        tenant.admin.call("key.steal", {})
    with pytest.raises(ConfigurationError):
        tenant.admin.call("key.create", {"key": "a", "purpose": "seal", "extra": 1})
    with pytest.raises(ConfigurationError):
        tenant.admin.call("key.create", {"key": "No Name", "purpose": "seal"})


def test_the_same_idempotency_key_has_one_effect(tenant):
    payload = {"principal": "once", "kind": "service"}
    first = tenant.admin.call("principal.create", payload, idempotency_key="k1")
    again = tenant.admin.call("principal.create", payload, idempotency_key="k1")
    assert first == again
    with pytest.raises(ConfigurationError):
        tenant.admin.call("principal.create", {**payload, "principal": "two"}, idempotency_key="k1")


def test_a_replayed_request_gets_the_stored_reply_and_no_second_effect(host, tenant):
    keyset = tenant.admin.attest().keyset
    body = {
        "op": "key.rotate",
        "tenant": tenant.name,
        "credential": {"type": "api-key", "value": tenant.key_file("admin").read_text().strip()},
        "idempotency_key": "r",
        "payload": {"key": "ssn"},
    }
    import time

    request = seal_request(body, key=keyset.request_key(time.time()), now=time.time())
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(
                lambda _: httpx.post(
                    host.url + "/v1/sealed",
                    content=request.token,
                    headers={"content-type": "application/jose"},
                ),
                range(4),
            )
        )
    sealed = {reply.text for reply in replies if reply.status_code == 200}
    assert len(sealed) == 1
    versions = next(k for k in tenant.admin.call("key.list", {})["keys"] if k["key"] == "ssn")["versions"]
    assert len(versions) == 2


def test_a_client_survives_a_rotation_of_the_hosts_keys(host, client):
    before = client.attest().keyset.digest
    for _ in range(3):
        host.host.keysets.rotate()
        assert client.open(client.seal(SSN, key="ssn")) == SSN
    client.forget()
    assert client.attest().keyset.digest != before


def test_a_policy_for_another_deployment_sends_nothing(host, tenant):
    policy = policy_from(host.policy)
    mapping = {
        "version": 1,
        "environment": "simulated",
        "deployment": "A" * 43,
        "tee": {
            "simulated": {
                "reference": [{"name": "x", "measurement": host.host.machine.measurements["measurement"]}]
            }
        },
    }
    requests = []

    class Watching(HttpTransport):
        def post(self, path, body, **options):
            requests.append(path)
            return super().post(path, body, **options)

    other = Client(
        tenant=tenant.name,
        policy=AppraisalPolicy.from_mapping(mapping),
        identity=ApiKey("clk_x_y"),
        transport=Watching(host.url),
    )
    assert policy.deployment != "A" * 43
    with other, pytest.raises(EvidenceError, match="deployment"):
        other.seal(SSN, key="ssn")
    assert requests == ["/v1/attestation"]


def test_a_production_policy_refuses_a_simulated_host(host, tenant):
    mapping = {
        "version": 1,
        "deployment": host.host.deployment,
        "tee": {
            "simulated": {
                "reference": [{"name": "x", "measurement": host.host.machine.measurements["measurement"]}]
            }
        },
    }
    client = Client(
        tenant=tenant.name,
        policy=AppraisalPolicy.from_mapping(mapping),
        identity=ApiKey("clk_x_y"),
        transport=HttpTransport(host.url),
    )
    with client, pytest.raises(AppraisalError, match="environment"):
        client.attest()


def test_asyncio_speaks_the_same_protocol(host, client):
    async def main():
        settings = {
            "url": host.url,
            "tenant": client._flows.tenant,
            "policy": str(host.policy),
            "api_key_file": str(next(host.directory.glob(f"{client._flows.tenant}-app.key"))),
        }
        async with AsyncClient.from_env(**settings) as asynchronous:
            sealed = await asynchronous.seal(SSN, key="ssn")
            return await asynchronous.open(sealed), await asynchronous.open_column([sealed])

    assert anyio.run(main) == (SSN, [SSN])


def test_threads_attest_once(host, tenant):
    client = tenant.client("threads", [("seal", "key/ssn")])
    seen = []
    original = client._transport.post

    def watching(path, body, **options):
        seen.append(path)
        return original(path, body, **options)

    client._transport.post = watching
    barrier = threading.Barrier(8)

    def seal(_):
        barrier.wait()
        return client.seal(SSN, key="ssn")

    with client, ThreadPoolExecutor(8) as pool:
        list(pool.map(seal, range(8)))
    assert seen.count("/v1/attestation") == 1


def test_an_absent_host_is_an_error_that_says_what_to_do(tenant, tmp_path):
    client = Client(
        tenant=tenant.name,
        policy=policy_from(tenant.host.policy),
        identity=ApiKey("clk_x_y"),
        transport=HttpTransport("http://127.0.0.1:9"),
    )
    with client, pytest.raises(UnavailableError, match="CLOISTER_URL"):
        client.seal(SSN, key="ssn")


@pytest.mark.parametrize("body", [b"", b"hello", b"a.b.c.d.e", b"\xff" * 100, b"{}"])
def test_what_is_not_a_sealed_request_is_answered_in_the_clear_without_detail(host, body):
    reply = httpx.post(host.url + "/v1/sealed", content=body)
    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"nonce":"AA"}', b'{"nonce":1}', b"x" * 2000])
def test_a_challenge_that_is_none_is_refused(host, body):
    assert httpx.post(host.url + "/v1/attestation", content=body).status_code in {400, 413}


def test_the_clear_endpoints_say_nothing_of_tenants(host, tenant, client):
    client.seal(SSN, key="ssn")
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        reply = httpx.get(host.url + path)
        assert reply.status_code == 200
        assert tenant.name not in reply.text
    described = json.loads(httpx.get(host.url + "/openapi.json").text)
    assert {"key.create", "value.open", "tenant.create"} <= described["x-operations"].keys()


def test_every_act_and_refusal_is_in_the_audit_log(tenant, client):
    client.open_many(client.seal_many([SSN] * 3, key="ssn"))
    with pytest.raises(DeniedError):
        client.call("key.rotate", {"key": "ssn"})
    entries = tenant.admin.call("audit.list", {})["entries"]
    assert sum(entry["act"] == "value.open" for entry in entries) == 3
    assert any(entry["outcome"] == "refused" for entry in entries)
    assert SSN not in json.dumps(entries)


def test_a_host_started_again_over_its_state_opens_what_it_sealed(tmp_path):
    with embedded_host(tmp_path) as first:
        tenant = first.tenant("acme")
        tenant.admin.call("key.create", {"key": "ssn", "purpose": "seal"})
        with tenant.client("app", [("seal", "key/ssn"), ("decrypt", "key/ssn")]) as client:
            sealed = client.seal(SSN, key="ssn")
        tenant.admin.close()
        deployment = first.host.deployment
    with embedded_host(tmp_path) as second:
        assert second.host.deployment == deployment
        with second.client("acme", tmp_path / "acme-app.key") as client:
            assert client.open(sealed) == SSN


def test_a_grant_written_into_the_database_is_found_out(tmp_path):
    with embedded_host(tmp_path) as host:
        tenant = host.tenant("acme")
        tenant.admin.call("key.create", {"key": "ssn", "purpose": "seal"})
        with (
            tenant.client("app", [("seal", "key/ssn")]) as app,
            tenant.client("thief") as thief,
        ):
            app.seal(SSN, key="ssn")
            with sqlite3.connect(tmp_path / "state" / "cloister.db") as database:
                database.execute(
                    "INSERT INTO grants SELECT tenant, replace(id, 'app', 'thief'), version,"
                    " replace(content, 'app', 'thief'), secret, mac FROM grants WHERE id LIKE 'app|%'"
                )
            database.close()
            with pytest.raises(UnavailableError):
                thief.seal(SSN, key="ssn")
        tenant.admin.close()
