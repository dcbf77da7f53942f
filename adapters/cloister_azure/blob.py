"""Sealed values in Blob Storage: written and read as they are, never opened here."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, LimitError
from cloister.faas.stored import SealedInfo
from cloister.jose.jwe import MAX_CHARS
from cloister_azure.storage import call, connect

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

__all__ = ["CONNECTION", "Container", "SealedInfo", "get_sealed", "head_sealed", "put_sealed"]

Container: TypeAlias = "str | ContainerClient"
"""The name of a container, or your own client of one, for example with a managed identity."""

CONNECTION: Final = "AzureWebJobsStorage"
KID: Final = "cloister_kid"  # metadata in Azure is named like a variable
CONTENT_TYPE: Final = "application/jose"


def put_sealed(
    container: Container,
    name: str,
    sealed: str,
    *,
    only_new: bool = False,
    if_match: str | None = None,
    metadata: Mapping[str, str] | None = None,
    connection: str = CONNECTION,
) -> str:
    """Store a sealed value as a blob; the key version it is under becomes metadata.

    Args:
        container: The container.
        name: The blob's name; everyone who may list the container reads it.
        sealed: What `Client.seal` returned. Anything else is refused, so no plaintext is stored by mistake.
        only_new: Refuse to replace a blob (`If-None-Match: *`).
        if_match: Replace only the blob that has this ETag.
        metadata: More metadata, stored in the clear.
        connection: App setting with the connection string, where the container is given by its name.

    Returns:
        The blob's ETag.

    Raises:
        OpenError: `sealed` is not a sealed value.
        ConfigurationError: There is no such container, or a condition is not met; then nothing was replaced.
        DeniedError: The storage account refused.
        UnavailableError: It did not answer.
    """
    value = Sealed(sealed)
    if only_new and if_match is not None:
        raise ConfigurationError("only_new and if_match cannot both be met")
    from azure.core import MatchConditions  # noqa: PLC0415 (0.3 s, on the first use)
    from azure.storage.blob import ContentSettings  # noqa: PLC0415 (as above)

    condition: dict[str, Any] = {"overwrite": not only_new}
    if if_match is not None:
        condition |= {"etag": if_match, "match_condition": MatchConditions.IfNotModified}
    answer = call(
        _client(container, connection).get_blob_client(name).upload_blob,
        value.encode("ascii"),
        content_settings=ContentSettings(content_type=CONTENT_TYPE),
        metadata={**(metadata or {}), KID: value.kid},
        **condition,
    )
    return str(answer["etag"])


def get_sealed(container: Container, name: str, *, connection: str = CONNECTION) -> Sealed:
    """Read a sealed value from a blob.

    Raises:
        OpenError: The blob does not hold a sealed value.
        LimitError: The blob is larger than any sealed value.
        ConfigurationError: There is no such blob or container.
        DeniedError: The storage account refused.
        UnavailableError: It did not answer.
    """
    raw = call(_read, _client(container, connection).get_blob_client(name))
    if len(raw) > MAX_CHARS:
        raise LimitError("the blob is larger than any sealed value", hint="is it the right blob?")
    return Sealed(raw.decode("ascii", errors="replace"))


def head_sealed(container: Container, name: str, *, connection: str = CONNECTION) -> SealedInfo:
    """What a blob tells without being read.

    Raises:
        ConfigurationError: There is no such blob or container.
        DeniedError: The storage account refused.
        UnavailableError: It did not answer.
    """
    properties = call(_client(container, connection).get_blob_client(name).get_blob_properties)
    metadata = dict(properties.metadata or {})
    kid = metadata.pop(KID, "")
    return SealedInfo(kid=kid, etag=str(properties.etag), size_bytes=int(properties.size), metadata=metadata)


def _read(blob: BlobClient) -> bytes:
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415 (0.3 s, on the first use)

    try:
        # One byte more than allowed tells a longer blob without reading it.
        return bytes(blob.download_blob(offset=0, length=MAX_CHARS + 1, max_concurrency=1).readall())
    except HttpResponseError as error:
        if error.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return b""  # an empty blob has no range


def _client(container: Container, connection: str) -> ContainerClient:
    return connect(connection).get_container_client(container) if isinstance(container, str) else container
