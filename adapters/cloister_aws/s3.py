"""Sealed values in S3: written and read as they are, never opened here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import unquote_plus

from cloister.envelope import Sealed
from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError, UnavailableError
from cloister.faas.stored import SealedInfo
from cloister.jose.jwe import MAX_CHARS
from cloister_aws.boto import boto_errors, error_code

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client

__all__ = [
    "Connection",
    "SealedInfo",
    "client_of",
    "get_sealed",
    "head_sealed",
    "object_of",
    "put_sealed",
    "typed_error",
]

Connection: TypeAlias = "S3Client | boto3.Session"

KID: Final = "cloister-kid"

CONTENT_TYPE: Final = "application/jose"
ABSENT: Final = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
REFUSED: Final = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
EXISTS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


def put_sealed(
    bucket: str,
    key: str,
    sealed: str,
    *,
    s3: Connection | None = None,
    only_new: bool = False,
    if_match: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Store a sealed value as an object; the key version it is under becomes object metadata.

    Args:
        bucket: The bucket.
        key: The object's key; everyone who may list the bucket reads it.
        sealed: What `Client.seal` returned. Anything else is refused, so no plaintext is stored by mistake.
        s3: Your own boto3 client or session; by default one of the default session.
        only_new: Refuse to replace an object (`If-None-Match: *`).
        if_match: Replace only the object that has this ETag.
        metadata: More metadata, stored in the clear.

    Returns:
        The object's ETag.

    Raises:
        OpenError: `sealed` is not a sealed value.
        ConfigurationError: There is no such bucket, or a condition is not met; then nothing was replaced.
        DeniedError: S3 refused.
        UnavailableError: S3 did not answer.
    """
    value = Sealed(sealed)
    if only_new and if_match is not None:
        raise ConfigurationError("only_new and if_match cannot both be met")
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
    if if_match is not None:
        condition["IfMatch"] = if_match
    try:
        answer = client_of(s3).put_object(
            Bucket=bucket,
            Key=key,
            Body=value.encode("ascii"),
            ContentType=CONTENT_TYPE,
            Metadata={**(metadata or {}), KID: value.kid},
            **condition,
        )
    except boto_errors() as error:
        failure = typed_error(error)
    else:
        return answer["ETag"]
    raise failure


def get_sealed(bucket: str, key: str, *, s3: Connection | None = None) -> Sealed:
    """Read a sealed value from an object.

    Raises:
        OpenError: The object does not hold a sealed value.
        LimitError: The object is larger than any sealed value.
        ConfigurationError: There is no such object or bucket.
        DeniedError: S3 refused.
        UnavailableError: S3 did not answer.
    """
    try:
        answer = client_of(s3).get_object(Bucket=bucket, Key=key)
        # One byte more than allowed tells a longer object without reading it.
        raw = answer["Body"].read(MAX_CHARS + 1)
    except boto_errors() as error:
        failure = typed_error(error)
    else:
        if len(raw) > MAX_CHARS:
            raise LimitError("the object is larger than any sealed value", hint="is it the right object?")
        return Sealed(raw.decode("ascii", errors="replace"))
    raise failure


def head_sealed(bucket: str, key: str, *, s3: Connection | None = None) -> SealedInfo:
    """What an object tells without being read.

    Raises:
        ConfigurationError: There is no such object or bucket.
        DeniedError: S3 refused.
        UnavailableError: S3 did not answer.
    """
    try:
        answer = client_of(s3).head_object(Bucket=bucket, Key=key)
    except boto_errors() as error:
        failure = typed_error(error)
    else:
        metadata = dict(answer["Metadata"])
        kid = metadata.pop(KID, "")
        size = answer["ContentLength"]
        return SealedInfo(kid=kid, etag=answer["ETag"], size_bytes=size, metadata=metadata)
    raise failure


def object_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """Bucket and key of an S3 notification's record; the key comes URL-encoded and is decoded.

    Raises:
        ConfigurationError: It is no record of an S3 notification.
    """
    try:
        item = record["s3"]
        return str(item["bucket"]["name"]), unquote_plus(str(item["object"]["key"]))
    except (KeyError, TypeError):
        raise ConfigurationError("this is no record of an S3 notification") from None


def client_of(connection: Connection | None) -> S3Client:
    """The client to call: the given one, one of the given session, or one of the default session."""
    if connection is None:
        return _default_client()
    # A session makes clients; a client is one.
    make = getattr(connection, "client", None)
    return cast("S3Client", connection if make is None else make("s3"))


def forget_default_client() -> None:
    """Drop the default client, its credentials and its connections."""
    _default_client.cache_clear()


@functools.cache
def _default_client() -> S3Client:
    import boto3  # noqa: PLC0415 (0.2 s, for those who use S3 only)

    return boto3.client("s3")


def typed_error(error: Exception) -> CloisterError:
    """S3's error without bucket and key, which may name a person."""
    code = error_code(error)
    if code in EXISTS:
        return ConfigurationError(
            "there already is an object of that key, or it is another by now", hint="nothing was replaced"
        )
    if code in ABSENT:
        return ConfigurationError("there is no such object or bucket in S3", hint="check bucket and key")
    if code in REFUSED:
        return DeniedError("S3 refused", hint="the role needs s3:GetObject or s3:PutObject on the object")
    return UnavailableError(f"S3 did not answer ({code or type(error).__name__})")
