"""Sealed values in Cloud Storage, by the real client against a store that keeps its conditions."""

from __future__ import annotations

import email
import email.policy
import json
import subprocess
import sys
from urllib.parse import unquote

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from cloister.envelope import seal_to
from cloister.errors import ConfigurationError, DeniedError, LimitError, OpenError, UnavailableError
from cloister.jose import generate_key
from cloister_gcp import gcs
from local_cloud.http_server import HttpServer, Request, Response, json_response

SECRET = "078-05-1120"


class Storage:
    """The JSON API, as far as one object needs it. The emulator on PyPI does not look at conditions."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[dict, bytes]] = {}
        self.status = 0
        self.generation = 100

    def __call__(self, request: Request) -> Response:
        if self.status:
            return Response(status=self.status)
        if request.method == "POST":
            return self.upload(request)
        name = unquote(request.target.partition("?")[0].rpartition("/o/")[2])
        if name not in self.objects:
            return Response(status=404)
        resource, content = self.objects[name]
        wanted = request.query.get("ifGenerationMatch") or request.query.get("generation")
        if wanted not in {None, resource["generation"]}:
            return Response(status=412 if "ifGenerationMatch" in request.query else 404)
        if request.query.get("alt") == "media":
            return Response(body=content, headers={"Content-Type": resource["contentType"]})
        return json_response(resource)

    def upload(self, request: Request) -> Response:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + request.body, policy=email.policy.default)
        first, second = message.iter_parts()
        resource = json.loads(first.get_content())
        now = self.objects.get(resource["name"], ({"generation": "0"}, b""))[0]["generation"]
        if request.query.get("ifGenerationMatch", now) != now:
            return Response(status=412)
        self.generation += 1
        content = second.get_payload(decode=True)
        resource |= {
            "generation": str(self.generation),
            "size": str(len(content)),
            "contentType": second.get_content_type(),
            "bucket": "b",
        }
        self.objects[resource["name"]] = (resource, content)
        return json_response(resource)


@pytest.fixture
def service():
    return Storage()


@pytest.fixture
def storage(service):
    with HttpServer(service) as server:
        options = {"api_endpoint": server.url}
        with Client(project="p", credentials=AnonymousCredentials(), client_options=options) as client:
            yield client


@pytest.fixture(scope="session")
def sealed():
    return seal_to("a number", generate_key("HPKE-7-KE").public(), kid="ssn.1")


def test_a_value_comes_back_as_it_went(storage, service, sealed):
    generation = gcs.put_sealed("b", "folder/17.jwe", sealed, storage=storage, metadata={"customer": "17"})
    assert gcs.get_sealed("b", "folder/17.jwe", storage=storage) == sealed
    assert service.objects["folder/17.jwe"][0]["contentType"] == "application/jose"
    assert gcs.head_sealed("b", "folder/17.jwe", storage=storage) == gcs.SealedInfo(
        "ssn.1", generation, len(sealed), {"customer": "17"}
    )


def test_a_plaintext_is_not_stored(storage, service):
    with pytest.raises(OpenError):
        gcs.put_sealed("b", "n", SECRET, storage=storage)
    assert service.objects == {}


def test_what_is_there_is_not_replaced_where_it_must_be_new(storage, service, sealed):
    gcs.put_sealed("b", "n", sealed, storage=storage, only_new=True)
    first = service.objects["n"]
    with pytest.raises(ConfigurationError, match="already"):
        gcs.put_sealed("b", "n", sealed, storage=storage, only_new=True)
    assert service.objects["n"] is first


def test_only_the_generation_that_is_meant_is_replaced(storage, sealed):
    first = gcs.put_sealed("b", "n", sealed, storage=storage)
    second = gcs.put_sealed("b", "n", sealed, storage=storage, if_generation_match=first)
    with pytest.raises(ConfigurationError):
        gcs.put_sealed("b", "n", sealed, storage=storage, if_generation_match=first)
    assert gcs.head_sealed("b", "n", storage=storage).generation == second
    with pytest.raises(ConfigurationError, match="both"):
        gcs.put_sealed("b", "n", sealed, storage=storage, only_new=True, if_generation_match=second)


def test_an_earlier_generation_is_not_mistaken_for_the_one_that_is_meant(storage, sealed):
    first = gcs.put_sealed("b", "n", sealed, storage=storage)
    assert gcs.get_sealed("b", "n", storage=storage, generation=first) == sealed
    gcs.put_sealed("b", "n", sealed, storage=storage)
    with pytest.raises(ConfigurationError, match="no such object"):
        gcs.get_sealed("b", "n", storage=storage, generation=first)


@pytest.mark.parametrize("content", [b"", SECRET.encode(), b"\xff\xfe", b"a.b.c.d.e"])
def test_what_is_no_sealed_value_is_refused_without_its_content(storage, service, sealed, content):
    gcs.put_sealed("b", "n", sealed, storage=storage)
    resource, _ = service.objects["n"]
    service.objects["n"] = ({**resource, "size": str(len(content))}, content)
    with pytest.raises(OpenError) as refused:
        gcs.get_sealed("b", "n", storage=storage)
    assert SECRET not in str(refused.value)


def test_an_object_that_is_too_long_is_not_read(storage, service, sealed):
    gcs.put_sealed("b", "n", sealed, storage=storage)
    resource, content = service.objects["n"]
    service.objects["n"] = ({**resource, "size": str(2**40)}, content)
    with pytest.raises(LimitError):
        gcs.get_sealed("b", "n", storage=storage)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, DeniedError), (403, DeniedError), (404, ConfigurationError), (400, UnavailableError)],
)
def test_what_storage_refuses_is_told_without_names(storage, service, status, error):
    service.status = status
    with pytest.raises(error) as refused:
        gcs.get_sealed("secret-bucket", "n", storage=storage)
    assert "secret-bucket" not in str(refused.value)


def test_the_client_of_storage_is_loaded_when_it_is_used():
    program = (
        "import sys, cloister_gcp;"
        "assert not {'google.cloud.storage', 'google.auth', 'requests', 'flask'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
