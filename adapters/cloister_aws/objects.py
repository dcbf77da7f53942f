"""Sealed objects in S3: multipart uploads, ranged reads. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cloister.objects import Part
from cloister_aws.boto import boto_errors
from cloister_aws.s3 import Connection, client_of, typed_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3ObjectStore"]

CONTENT_TYPE: Final = "application/octet-stream"


class S3ObjectStore:
    """A bucket that sealed objects are kept in.

    Args:
        bucket: The bucket.
        s3: Your own boto3 client or session; by default one of the default session.
    """

    def __init__(self, bucket: str, *, s3: Connection | None = None) -> None:
        self._bucket = bucket
        self._s3 = client_of(s3)

    def upload(self, name: str, *, only_new: bool, resume: str | None = None) -> S3Upload:
        """Begin a multipart upload, or take up the one called `resume`."""
        place = {"Bucket": self._bucket, "Key": name}
        if resume is None:
            answer = _call(self._s3.create_multipart_upload, **place, ContentType=CONTENT_TYPE)
            resume = str(answer["UploadId"])
        return S3Upload(self._s3, {**place, "UploadId": resume}, only_new=only_new)

    def source(self, name: str) -> S3Source:
        """Open an object for ranged reads."""
        answer = _call(self._s3.head_object, Bucket=self._bucket, Key=name)
        place = {"Bucket": self._bucket, "Key": name, "IfMatch": answer["ETag"]}
        return S3Source(self._s3, place, answer["ContentLength"])

    def stream(self, name: str) -> S3Stream:
        """Open an object to be read from its start to its end."""
        return S3Stream(_call(self._s3.get_object, Bucket=self._bucket, Key=name)["Body"])


class S3Upload:
    """One multipart upload."""

    def __init__(self, s3: S3Client, place: dict[str, str], *, only_new: bool) -> None:
        self._s3 = s3
        self._place = place
        self._condition = {"IfNoneMatch": "*"} if only_new else {}

    @property
    def id(self) -> str:
        """The upload id."""
        return self._place["UploadId"]

    def put(self, part: Part) -> str:
        """Store a part; gives its ETag."""
        answer = _call(self._s3.upload_part, **self._place, PartNumber=part.number, Body=part.body)
        return str(answer["ETag"])

    def finish(self, tags: list[str]) -> None:
        """Make the object appear."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, start=1)]
        _call(
            self._s3.complete_multipart_upload,
            **self._place,
            **self._condition,
            MultipartUpload={"Parts": parts},
        )

    def abort(self) -> None:
        """Give it up; S3 would charge for its parts until a lifecycle rule ends it."""
        _call(self._s3.abort_multipart_upload, **self._place)


class S3Source:
    """One object as it was when it was opened (`If-Match`)."""

    def __init__(self, s3: S3Client, place: dict[str, str], size: int) -> None:
        self._s3 = s3
        self._place = place
        self._size = size

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Read a range."""
        wanted = f"bytes={offset}-{offset + length - 1}"
        body = _call(self._s3.get_object, **self._place, Range=wanted)["Body"]
        return bytes(_call(body.read, length))


class S3Stream:
    """The body of an object."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes."""
        return bytes(_call(self._body.read, size))


def _call(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except boto_errors() as error:
        failure = typed_error(error)
    raise failure
