"""Sealed objects between a real client and a real host."""

from __future__ import annotations

import io
import os

import anyio
import pytest

from cloister import AsyncClient
from cloister.errors import DeniedError, OpenError
from cloister.objects import FileSource, ObjectKey, seal_stream
from cloister_host.testing import embedded_host

CONTEXT = {"customer": "17"}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def tenant(host):
    tenant = host.tenant()
    tenant.admin.call("key.create", {"key": "documents", "purpose": "seal"})
    yield tenant
    tenant.admin.close()


@pytest.fixture
def client(tenant):
    with tenant.client("app", [("seal", "key/documents"), ("unwrap", "key/documents")]) as client:
        yield client


def seal(client, content, **options):
    sink = io.BytesIO()
    client.seal_object(io.BytesIO(content), sink, key="documents", **options)
    return sink.getvalue()


def test_an_object_opens_where_its_data_key_may_be_unwrapped(client):
    content = os.urandom(2_500_000)
    raw = seal(client, content, context=CONTEXT, cty="application/pdf")
    sink = io.BytesIO()
    assert client.open_object(io.BytesIO(raw), sink, context=CONTEXT) == len(content)
    assert sink.getvalue() == content
    with client.object_reader(FileSource(io.BytesIO(raw)), context=CONTEXT) as reader:
        reader.seek(1_048_570)
        assert reader.read(6) == content[1_048_570:1_048_576]
    with pytest.raises(OpenError):
        client.open_object(io.BytesIO(raw), io.BytesIO(), context={"customer": "18"})


def test_a_key_context_is_bound_too(client):
    raw = seal(client, b"content", context=CONTEXT, key_context={"region": "eu"})
    assert client.open_object(io.BytesIO(raw), io.BytesIO(), context={**CONTEXT, "region": "eu"}) == 7
    with pytest.raises(OpenError):
        client.open_object(io.BytesIO(raw), io.BytesIO(), context=CONTEXT)


def test_whoever_may_only_seal_cannot_open(tenant):
    with tenant.client("uploader", [("seal", "key/documents")]) as uploader:
        raw = seal(uploader, b"content")
        with pytest.raises(DeniedError):
            uploader.open_object(io.BytesIO(raw), io.BytesIO())


def test_an_object_sealed_offline_to_the_public_half_opens(tenant):
    tenant.admin.call("key.create", {"key": "intake", "purpose": "seal-public"})
    with tenant.client("reader", [("key.read", "key/intake"), ("unwrap", "key/intake")]) as reader:
        public = reader.public_key("intake")
        raw = io.BytesIO()
        seal_stream(io.BytesIO(b"content"), raw, ObjectKey.to_public(public.jwk, kid=public.kid))
        sink = io.BytesIO()
        reader.open_object(io.BytesIO(raw.getvalue()), sink)
    assert sink.getvalue() == b"content"


def test_the_asynchronous_client_seals_and_opens(tenant, client):
    names = {"CLOISTER_URL": "url", "CLOISTER_TENANT": "tenant", "CLOISTER_POLICY": "policy"}
    environment = tenant.environment("app")
    settings = {name: environment[variable] for variable, name in names.items()}

    async def both():
        async with AsyncClient.from_env(
            **settings, api_key_file=environment["CLOISTER_API_KEY_FILE"]
        ) as asynchronous:
            raw, sink = io.BytesIO(), io.BytesIO()
            await asynchronous.seal_object(io.BytesIO(b"content"), raw, key="documents", context=CONTEXT)
            await asynchronous.open_object(io.BytesIO(raw.getvalue()), sink, context=CONTEXT)
            return sink.getvalue()

    assert anyio.run(both) == b"content"
