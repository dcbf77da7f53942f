from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import ResourceExistsError

from local_cloud.azurite import Azurite
from support import require

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    require.azurite()
    with Azurite() as service:
        yield service


def test_the_real_client_stores_a_blob_once(azurite: Azurite) -> None:
    with azurite.client() as client:
        container = client.create_container("deliveries")
        blob = container.get_blob_client("a/b")
        blob.upload_blob(b"sealed", metadata={"kid": "pins"})

        with pytest.raises(ResourceExistsError):
            blob.upload_blob(b"again", overwrite=False)
        assert blob.download_blob().readall() == b"sealed"
        assert blob.get_blob_properties().metadata == {"kid": "pins"}


def test_a_service_is_empty_and_has_a_key_of_its_own(azurite: Azurite) -> None:
    with Azurite() as other, other.client() as client:
        assert list(client.list_containers()) == []
    assert other.connection_string != azurite.connection_string


def test_without_an_installation_the_error_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_cloud.azurite.azurite_script", lambda: None)
    with pytest.raises(RuntimeError, match=r"python -m local_cloud\.install azurite"):
        Azurite()
