"""A bucket with one sealed value an object, for `cloister transfer`."""

from __future__ import annotations

from collections.abc import Iterator

from cloister.envelope import Sealed
from cloister.errors import ConfigurationError
from cloister_aws import s3 as sealed_s3
from cloister_aws.boto import boto_errors
from cloister_aws.s3 import Connection, client_of, typed_error

__all__ = ["S3Values"]


class S3Values:
    """The sealed values of a bucket.

    Args:
        bucket: The bucket.
        s3: Your own boto3 client or session; by default one of the default session.
    """

    def __init__(self, bucket: str, *, s3: Connection | None = None) -> None:
        self._bucket = bucket
        self._s3 = client_of(s3)

    def names(self, prefix: str) -> Iterator[str]:
        """Keys of the objects under a prefix, in order."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            for page in pages:
                yield from (item["Key"] for item in page.get("Contents", ()))
        except boto_errors() as error:
            failure = typed_error(error)
        else:
            return
        raise failure

    def get(self, name: str) -> Sealed:
        """The sealed value of an object; errors as `s3.get_sealed`."""
        return sealed_s3.get_sealed(self._bucket, name, s3=self._s3)

    def put_new(self, name: str, sealed: Sealed) -> bool:
        """Write a value if there is no object of that key; errors as `s3.put_sealed`."""
        try:
            sealed_s3.put_sealed(self._bucket, name, sealed, s3=self._s3, only_new=True)
        except ConfigurationError:
            sealed_s3.head_sealed(self._bucket, name, s3=self._s3)  # raises where there is none
            return False
        return True
