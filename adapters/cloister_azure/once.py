"""Records of deliveries in Azure Blob Storage."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloister.errors import ConfigurationError, UnavailableError
from cloister_azure.storage import connect, unavailable

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient, ContainerClient

__all__ = ["BlobOnce"]


class BlobOnce:
    """One blob a delivery, named by its id and never replaced (`If-None-Match: *`).

    Blobs must outlive every repetition: set no lifecycle rule shorter than the host keeps dead deliveries.

    Args:
        container: An existing container.
        connection: App setting with the storage account's connection string.
        service: Your own client instead, for example with a managed identity.
    """

    def __init__(
        self,
        container: str,
        *,
        connection: str = "AzureWebJobsStorage",
        service: BlobServiceClient | None = None,
    ) -> None:
        self._name = container
        self._connection = connection
        self._service = service
        self._container: ContainerClient | None = None
        self._lock = threading.Lock()

    def recorded(self, delivery_id: str) -> bool:
        """Whether there is a blob of this delivery."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 (0.3 s, on the first delivery)

        try:
            return self._open().get_blob_client(delivery_id).exists()
        except AzureError as error:
            failure = unavailable(error)
        raise failure

    def record(self, delivery_id: str, content: bytes, metadata: Mapping[str, str]) -> bool:
        """Write the blob if there is none; False if there is one.

        Raises:
            ConfigurationError: There is no such container.
            UnavailableError: The storage account did not answer.
        """
        from azure.core.exceptions import (  # noqa: PLC0415 (as above)
            AzureError,
            ResourceExistsError,
            ResourceNotFoundError,
        )

        failure: ConfigurationError | UnavailableError
        try:
            # `overwrite=False` is sent as `If-None-Match: *`.
            self._open().upload_blob(delivery_id, content, overwrite=False, metadata=dict(metadata))
        except ResourceExistsError:
            return False
        except ResourceNotFoundError:
            failure = ConfigurationError(
                f"there is no blob container {self._name!r}", hint="create it with the storage account"
            )
        except AzureError as error:
            failure = unavailable(error)
        else:
            return True
        raise failure

    def _open(self) -> ContainerClient:
        with self._lock:
            if self._container is None:
                self._container = (self._service or connect(self._connection)).get_container_client(
                    self._name
                )
            return self._container
