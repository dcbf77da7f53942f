from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from local_cloud.process import Process, clean_environment
from local_cloud.s3 import LocalS3

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def s3() -> Iterator[LocalS3]:
    with LocalS3() as local:
        yield local


def test_the_real_client_stores_and_reads_objects(s3: LocalS3) -> None:
    client = s3.client()
    client.create_bucket(Bucket="uploads")
    client.put_object(Bucket="uploads", Key="a/b", Body=b"sealed", Metadata={"kid": "ssn.1"})

    found = client.get_object(Bucket="uploads", Key="a/b", Range="bytes=1-3")

    assert found["Body"].read() == b"eal"
    assert found["Metadata"] == {"kid": "ssn.1"}
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="uploads", Key="a/b", Body=b"", IfNoneMatch="*")
    client.close()


def test_a_program_with_the_environment_reaches_it(s3: LocalS3) -> None:
    client = s3.client()
    client.create_bucket(Bucket="uploads")
    client.close()
    script = "import boto3; print([b['Name'] for b in boto3.client('s3').list_buckets()['Buckets']])"

    with Process([sys.executable, "-c", script], environment=clean_environment(s3.environment)) as process:
        process.wait_for_output(r"\['uploads'\]")


def test_a_new_server_is_empty() -> None:
    for _ in range(2):
        with LocalS3() as local:
            client = local.client()
            assert client.list_buckets()["Buckets"] == []
            client.create_bucket(Bucket="uploads")
            client.close()
