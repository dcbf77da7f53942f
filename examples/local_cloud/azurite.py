"""Azure Blob Storage on this machine: the real Azurite, in memory, for the real client."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

from azure.storage.blob import BlobServiceClient

from local_cloud.install import azurite_script
from local_cloud.process import Process, clean_environment

__all__ = ["Azurite"]

ACCOUNT = "localaccount"
OPTIONS = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry")


class Azurite:
    """An empty storage account with a key of its own.

    Raises:
        RuntimeError: Node.js is missing, or Azurite is not installed.
    """

    def __init__(self) -> None:
        node, script = shutil.which("node"), azurite_script()
        if node is None or script is None:
            raise RuntimeError("Azurite is not installed: python -m local_cloud.install azurite")
        key = base64.b64encode(os.urandom(64)).decode()
        self._folder = tempfile.TemporaryDirectory(prefix="azurite-")
        self._process = Process(
            [node, script, "--blobHost", "127.0.0.1", "--blobPort", "0", *OPTIONS],
            environment=clean_environment({"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}),
            directory=Path(self._folder.name),
        )
        try:
            found = self._process.wait_for_output(r"successfully listens on (http://127\.0\.0\.1:\d+)")
        except RuntimeError:
            self.close()
            raise
        self.connection_string = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
            f"BlobEndpoint={found[1]}/{ACCOUNT};"
        )

    def client(self) -> BlobServiceClient:
        """The real client; close it."""
        return BlobServiceClient.from_connection_string(self.connection_string)

    def close(self) -> None:
        """Stop the service; its blobs are gone."""
        self._process.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
