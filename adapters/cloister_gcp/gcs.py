"""Sealed values in Cloud Storage: written and read as they are, never opened here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError, LimitError
from cloister.jose.jwe import MAX_CHARS
from cloister_gcp.storage import typed_call

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

__all__ = ["SealedInfo", "get_sealed", "head_sealed", "put_sealed"]

KID: Final = "cloister-kid"
CONTENT_TYPE: Final = "application/jose"


class SealedInfo(NamedTuple):
    """What an object tells without being read.

    Attributes:
        kid: Key version that the value is under, as its writer noted it; believe `Sealed.kid` alone.
        generation: For `if_generation_match`.
        size_bytes: Length of the sealed value.
        metadata: What the writer put beside it, in the clear.
    """

    kid: str
    generation: int
    size_bytes: int
    metadata: Mapping[str, str]


def put_sealed(
    bucket: str,
    name: str,
    sealed: str,
    *,
    storage: Client | None = None,
    only_new: bool = False,
    if_generation_match: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Store a sealed value as an object; the key version it is under becomes object metadata.

    Args:
        bucket: The bucket.
        name: The object's name; everyone who may list the bucket reads it.
        sealed: What `Client.seal` returned. Anything else is refused, so no plaintext is stored by mistake.
        storage: Your own `google.cloud.storage.Client`; by default one with application default credentials.
        only_new: Refuse to replace an object (`if_generation_match=0`).
        if_generation_match: Replace only the object of this generation.
        metadata: More metadata, stored in the clear.

    Returns:
        The object's generation.

    Raises:
        OpenError: `sealed` is not a sealed value.
        ConfigurationError: There is no such bucket, or a condition is not met; then nothing was replaced.
        DeniedError: Cloud Storage refused.
        UnavailableError: Cloud Storage did not answer.
    """
    value = Sealed(sealed)
    if only_new and if_generation_match is not None:
        raise ConfigurationError("only_new and if_generation_match cannot both be met")
    condition = 0 if only_new else if_generation_match
    blob = _blob(bucket, name, storage)
    blob.metadata = {**(metadata or {}), KID: value.kid}
    typed_call(
        blob.upload_from_string,
        value.encode("ascii"),
        content_type=CONTENT_TYPE,
        if_generation_match=condition,
    )
    return int(blob.generation)


def get_sealed(
    bucket: str, name: str, *, storage: Client | None = None, generation: int | None = None
) -> Sealed:
    """Read a sealed value from an object.

    Args:
        bucket: The bucket.
        name: The object's name.
        storage: As in `put_sealed`.
        generation: The one that is meant, for example of an event (`object_of`); by default the latest.

    Raises:
        OpenError: What is stored is no sealed value.
        ConfigurationError: There is no such object or bucket.
        LimitError: It is longer than a sealed value can be.
        DeniedError: Cloud Storage refused.
        UnavailableError: Cloud Storage did not answer.
    """
    blob = _existing(bucket, name, storage, generation)
    if int(blob.size) > MAX_CHARS:
        raise LimitError("the object is longer than a sealed value", hint="read it as a sealed object")
    raw = typed_call(blob.download_as_bytes, if_generation_match=blob.generation)
    return Sealed(bytes(raw).decode("ascii", errors="replace"))


def head_sealed(bucket: str, name: str, *, storage: Client | None = None) -> SealedInfo:
    """Tell what an object's metadata says, without reading it; errors as `get_sealed`."""
    blob = _existing(bucket, name, storage, None)
    metadata = dict(blob.metadata or {})
    return SealedInfo(metadata.pop(KID, ""), int(blob.generation), int(blob.size), metadata)


def _blob(bucket: str, name: str, storage: Client | None, generation: int | None = None) -> Blob:
    client = storage if storage is not None else _default_client()
    return client.bucket(bucket).blob(name, generation=generation)


def _existing(bucket: str, name: str, storage: Client | None, generation: int | None) -> Blob:
    blob = _blob(bucket, name, storage, generation)
    typed_call(blob.reload)
    return blob


@functools.cache
def _default_client() -> Any:
    from google.cloud.storage import Client  # noqa: PLC0415 (1 s, on the first use)

    return typed_call(Client)
