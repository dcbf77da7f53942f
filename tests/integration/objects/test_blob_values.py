"""Sealed values in Blob Storage, on the real client and Azurite: conditions, metadata, errors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloister.envelope import Sealed, seal_to
from cloister.errors import ConfigurationError, DeniedError, LimitError, OpenError, UnavailableError
from cloister.jose import generate_key
from cloister_azure import BlobOnce, blob
from cloister_azure.storage import forget_clients
from cloister_azure.values import BlobValues, open_values
from local_cloud.azurite import Azurite
from support import require

KEY = generate_key("HPKE-7-KE")


def sealed(text="a history"):
    return seal_to(text, KEY.public(), kid="histories.3")


@pytest.fixture(scope="module")
def azurite():
    require.azurite()
    with Azurite() as azurite:
        yield azurite


@pytest.fixture
def container(azurite, monkeypatch, request):
    """A container, by your own client or by its name and an app setting."""
    monkeypatch.setenv("AzureWebJobsStorage", azurite.connection_string)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    with azurite.client() as service:
        name = f"c{abs(hash(request.node.nodeid)) % 10**12}"
        client = service.create_container(name)
        yield client
        client.delete_container()
    forget_clients()


@pytest.fixture(params=["client", "name"])
def place(container, request):
    return container if request.param == "client" else container.container_name


def test_a_sealed_value_is_stored_and_comes_back_as_it_was(place, container):
    value = sealed()
    etag = blob.put_sealed(place, "17.jwe", value, metadata={"origin": "till"})
    found = blob.get_sealed(place, "17.jwe")
    assert isinstance(found, Sealed)
    assert found == value
    info = blob.head_sealed(place, "17.jwe")
    assert info == ("histories.3", etag, len(value), {"origin": "till"})
    assert (
        container.get_blob_client("17.jwe").get_blob_properties().content_settings.content_type
        == "application/jose"
    )


@pytest.mark.parametrize("text", ["a history in the clear", "", "a.b.c.d.e"])
def test_what_is_not_sealed_is_not_stored(container, text):
    with pytest.raises(OpenError):
        blob.put_sealed(container, "17.jwe", text)
    assert list(container.list_blobs()) == []


def test_a_new_blob_replaces_none(container):
    first, second = sealed("1"), sealed("2")
    blob.put_sealed(container, "17.jwe", first, only_new=True)
    with pytest.raises(ConfigurationError, match="already is a blob"):
        blob.put_sealed(container, "17.jwe", second, only_new=True)
    assert blob.get_sealed(container, "17.jwe") == first


def test_a_blob_is_replaced_only_as_it_was_seen(container):
    etag = blob.put_sealed(container, "17.jwe", sealed("1"))
    newer = blob.put_sealed(container, "17.jwe", sealed("2"), if_match=etag)
    with pytest.raises(ConfigurationError, match="another by now"):
        blob.put_sealed(container, "17.jwe", sealed("3"), if_match=etag)
    assert blob.head_sealed(container, "17.jwe").etag == newer
    with pytest.raises(ConfigurationError, match="both"):
        blob.put_sealed(container, "17.jwe", sealed(), only_new=True, if_match=newer)


def test_without_a_condition_a_blob_is_replaced(container):
    blob.put_sealed(container, "17.jwe", sealed("1"))
    second = sealed("2")
    blob.put_sealed(container, "17.jwe", second)
    assert blob.get_sealed(container, "17.jwe") == second


@pytest.mark.parametrize("content", [b"a history in the clear", b"\xff", b""])
def test_a_blob_with_something_else_is_no_sealed_value_and_is_not_shown(container, content):
    container.upload_blob("17.jwe", content)
    with pytest.raises(OpenError) as refused:
        blob.get_sealed(container, "17.jwe")
    assert "history" not in str(refused.value)


def test_a_blob_that_is_too_large_is_not_read(container, monkeypatch):
    monkeypatch.setattr(blob, "MAX_CHARS", 10)
    container.upload_blob("17.jwe", b"x" * 11)
    with pytest.raises(LimitError):
        blob.get_sealed(container, "17.jwe")


def test_what_is_not_there_is_told_without_its_name(container):
    for call in (blob.get_sealed, blob.head_sealed):
        with pytest.raises(ConfigurationError) as refused:
            call(container, "ann-17.jwe")
        assert "ann-17" not in str(refused.value)
        assert refused.value.__context__ is None


def test_an_account_that_refuses_or_does_not_answer_is_told(azurite, container):
    from azure.storage.blob import BlobServiceClient

    account, url = (
        azurite.connection_string.split("AccountName=")[1].split(";")[0],
        container.primary_endpoint,
    )
    wrong = {"account_name": account, "account_key": "d3Jvbmc="}
    with BlobServiceClient(url.rpartition("/")[0], credential=wrong, retry_total=0) as service:
        stranger = service.get_container_client(container.container_name)
        with pytest.raises(DeniedError, match="refused"):
            blob.get_sealed(stranger, "17.jwe")
    with (
        BlobServiceClient("http://127.0.0.1:1/account", retry_total=0) as service,
        pytest.raises(UnavailableError),
    ):
        blob.put_sealed(service.get_container_client("c"), "17.jwe", sealed())


def test_a_setting_that_holds_no_connection_string_is_not_quoted(monkeypatch):
    monkeypatch.setenv("MINE", "AccountKey of somebody")
    with pytest.raises(ConfigurationError, match="MINE") as refused:
        blob.get_sealed("c", "17.jwe", connection="MINE")
    assert "somebody" not in str(refused.value)


# --- as a source and a target of transfers ---


def test_names_are_listed_in_order_under_their_prefix(container):
    values = BlobValues(container)
    for name in ("in/b", "in/a", "out/c"):
        assert values.put_new(name, sealed())
    assert list(values.names("in/")) == ["in/a", "in/b"]
    assert list(open_values(container.container_name).names("")) == ["in/a", "in/b", "out/c"]
    assert values.get("in/a").kid == "histories.3"


def test_a_value_is_put_once(container):
    values, first = BlobValues(container), sealed()
    assert values.put_new("a", first)
    assert not values.put_new("a", sealed())
    assert values.get("a") == first


def test_a_container_that_is_not_there_is_no_success(azurite):
    with azurite.client() as service, pytest.raises(ConfigurationError):
        BlobValues(service.get_container_client("absent")).put_new("a", sealed())


# --- records of deliveries ---


def test_of_many_records_at_once_one_is_written(azurite, container):
    together = threading.Barrier(8)

    def record(number):
        once = BlobOnce(container.container_name)  # each process of an app has its own
        together.wait(timeout=60)
        return once.record("delivery-0000000001", str(number).encode(), {"function": "f"})

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(record, range(8)))
    assert written.count(True) == 1
    content = container.download_blob("delivery-0000000001").readall()
    assert content == str(written.index(True)).encode()
