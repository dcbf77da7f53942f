"""S3, and what else moto knows of AWS, for the real boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import boto3
import requests
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["LocalS3"]


class LocalS3:
    """A moto server; its state belongs to the process, so it is emptied when a server starts."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        requests.post(f"{self.url}/moto-api/reset", timeout=10).raise_for_status()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point any AWS SDK here, with credentials that are none."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def session(self) -> boto3.Session:
        """A boto3 session; its clients need `endpoint_url=local.url`."""
        return boto3.Session(
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106 - moto accepts any
            aws_session_token="testing",  # noqa: S106 - as above
            region_name="us-east-1",
        )

    def client(self) -> S3Client:
        """The real S3 client."""
        return self.session().client("s3", endpoint_url=self.url)

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
