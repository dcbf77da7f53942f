"""A container with one sealed value a blob, for `cloister transfer`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError
from cloister_azure import blob
from cloister_azure.objects import CONNECTION
from cloister_azure.storage import call, connect

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

__all__ = ["BlobValues", "open_values"]


class BlobValues:
    """The sealed values of a container.

    Args:
        container: A client of an existing container, with your own credential.
    """

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def names(self, prefix: str) -> Iterator[str]:
        """Names of the blobs under a prefix, in order."""
        listed = iter(self._container.list_blob_names(name_starts_with=prefix))
        while (name := call(next, listed, None)) is not None:
            yield str(name)

    def get(self, name: str) -> Sealed:
        """The sealed value of a blob; errors as `blob.get_sealed`."""
        return blob.get_sealed(self._container, name)

    def put_new(self, name: str, sealed: Sealed) -> bool:
        """Write a value if there is no blob of that name; errors as `blob.put_sealed`."""
        try:
            blob.put_sealed(self._container, name, sealed, only_new=True)
        except ConfigurationError:
            if not call(self._container.get_blob_client(name).exists):
                raise
            return False
        return True


def open_values(container: str) -> BlobValues:
    """The container, in the account whose connection string is in `AZURE_STORAGE_CONNECTION_STRING`."""
    return BlobValues(connect(CONNECTION).get_container_client(container))
