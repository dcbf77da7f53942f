"""Sealed objects in Azure Blob Storage: block uploads, ranged reads. Nothing is opened here."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any, Final

from cloister.objects import Part
from cloister_azure.storage import call, connect

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

__all__ = ["CONNECTION", "BlobObjectStore", "open_container"]

CONTENT_TYPE: Final = "application/octet-stream"
CONNECTION: Final = "AZURE_STORAGE_CONNECTION_STRING"


class BlobObjectStore:
    """A container that sealed objects are kept in.

    Args:
        container: A client of an existing container, with your own credential.
    """

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def upload(self, name: str, *, only_new: bool, resume: str | None = None) -> BlobUpload:
        """Begin a block upload, or take up the one called `resume`."""
        return BlobUpload(
            self._container.get_blob_client(name), resume or secrets.token_hex(8), only_new=only_new
        )

    def source(self, name: str) -> BlobSource:
        """Open a blob for ranged reads."""
        blob = self._container.get_blob_client(name)
        return BlobSource(blob, call(blob.get_blob_properties))

    def stream(self, name: str) -> BlobStream:
        """Open a blob to be read from its start to its end."""
        blob = self._container.get_blob_client(name)
        return BlobStream(call(blob.download_blob, max_concurrency=1))


def open_container(name: str) -> BlobObjectStore:
    """The container of the storage account whose connection string is in `AZURE_STORAGE_CONNECTION_STRING`.

    Raises:
        ConfigurationError: It is not set.
    """
    return BlobObjectStore(connect(CONNECTION).get_container_client(name))


class BlobUpload:
    """Uncommitted blocks, whose names tell the upload they belong to."""

    def __init__(self, blob: BlobClient, upload: str, *, only_new: bool) -> None:
        self._blob = blob
        self._upload = upload
        self._only_new = only_new

    @property
    def id(self) -> str:
        """What begins the names of its blocks."""
        return self._upload

    def put(self, part: Part) -> str:
        """Store a block; gives its name."""
        name = base64.b64encode(f"{self._upload}-{part.number:06d}".encode()).decode()
        call(self._blob.stage_block, name, part.body, length=len(part.body))
        return name

    def finish(self, tags: list[str]) -> None:
        """Commit the blocks."""
        from azure.core import MatchConditions  # noqa: PLC0415 (0.3 s, on the first use)
        from azure.storage.blob import BlobBlock, ContentSettings  # noqa: PLC0415 (as above)

        condition = {"match_condition": MatchConditions.IfMissing} if self._only_new else {}
        call(
            self._blob.commit_block_list,
            [BlobBlock(block_id=tag) for tag in tags],
            content_settings=ContentSettings(content_type=CONTENT_TYPE),
            **condition,
        )

    def abort(self) -> None:
        """Nothing to do: blocks that are not committed are dropped after a week."""


class BlobSource:
    """One blob as it was when it was opened (`If-Match`)."""

    def __init__(self, blob: BlobClient, properties: Any) -> None:
        self._blob = blob
        self._etag = properties.etag
        self._size = int(properties.size)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Read a range."""
        from azure.core import MatchConditions  # noqa: PLC0415 (0.3 s, on the first use)

        stream = call(
            self._blob.download_blob,
            offset=offset,
            length=min(length, self._size - offset),
            etag=self._etag,
            match_condition=MatchConditions.IfNotModified,
        )
        return bytes(call(stream.readall))


class BlobStream:
    """The content of a blob."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes."""
        return bytes(call(self._stream.read, size))
