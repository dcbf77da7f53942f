"""Sealed values in S3: written and read as they are, never opened here."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from cloister.envelope import Sealed
from cloister.errors import CloisterError, ConfigurationError, DeniedError, LimitError, UnavailableError
from cloister.jose.jwe import MAX_CHARS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["get_sealed", "put_sealed"]

CONTENT_TYPE: Final = "application/jose"
ABSENT: Final = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
REFUSED: Final = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
EXISTS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


def put_sealed(
    bucket: str, key: str, sealed: str, *, s3: S3Client | None = None, only_new: bool = False
) -> None:
    """Store a sealed value as an object; the key version it is under becomes object metadata.

    Args:
        bucket: The bucket.
        key: The object's key; everyone who may list the bucket reads it.
        sealed: What `Client.seal` returned. Anything else is refused, so no plaintext is stored by mistake.
        s3: Your own boto3 client; by default one of the default session.
        only_new: Refuse to replace an object (`If-None-Match: *`).

    Raises:
        OpenError: `sealed` is not a sealed value.
        ConfigurationError: There is no such bucket, or with `only_new`, there already is such an object.
        DeniedError: S3 refused.
        UnavailableError: S3 did not answer.
    """
    value = Sealed(sealed)
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
    try:
        (s3 or _default_client()).put_object(
            Bucket=bucket,
            Key=key,
            Body=value.encode("ascii"),
            ContentType=CONTENT_TYPE,
            Metadata={"cloister-kid": value.kid},
            **condition,
        )
    except _boto_errors() as error:
        failure = _typed(error)
    else:
        return
    raise failure


def get_sealed(bucket: str, key: str, *, s3: S3Client | None = None) -> Sealed:
    """Read a sealed value from an object.

    Raises:
        OpenError: The object does not hold a sealed value.
        LimitError: The object is larger than any sealed value.
        ConfigurationError: There is no such object or bucket.
        DeniedError: S3 refused.
        UnavailableError: S3 did not answer.
    """
    try:
        answer = (s3 or _default_client()).get_object(Bucket=bucket, Key=key)
        # One byte more than allowed tells a longer object without reading it.
        raw = answer["Body"].read(MAX_CHARS + 1)
    except _boto_errors() as error:
        failure = _typed(error)
    else:
        if len(raw) > MAX_CHARS:
            raise LimitError("the object is larger than any sealed value", hint="is it the right object?")
        return Sealed(raw.decode("ascii", errors="replace"))
    raise failure


@functools.cache
def _default_client() -> S3Client:
    import boto3  # noqa: PLC0415 (0.2 s, for those who use S3 only)

    return boto3.client("s3")


def _boto_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415 (as boto3)

    return BotoCoreError, ClientError, HTTPClientError


def _typed(error: Exception) -> CloisterError:
    """S3's error without bucket and key, which may name a person."""
    response: Any = getattr(error, "response", {})
    code = str(response.get("Error", {}).get("Code", ""))
    if code in EXISTS:
        return ConfigurationError("there already is an object of that key", hint="nothing was replaced")
    if code in ABSENT:
        return ConfigurationError("there is no such object or bucket in S3", hint="check bucket and key")
    if code in REFUSED:
        return DeniedError("S3 refused", hint="the role needs s3:GetObject or s3:PutObject on the object")
    return UnavailableError(f"S3 did not answer ({code or type(error).__name__})")
