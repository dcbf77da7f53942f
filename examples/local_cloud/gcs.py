"""Google Cloud Storage on this machine: an emulator in memory, for the real client."""

from __future__ import annotations

import socket
from typing import Self

from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

__all__ = ["GoogleStorage"]


class GoogleStorage:
    """An empty project."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]  # the emulator cannot say which port it was given
        self._server = create_server("127.0.0.1", port, in_memory=True)
        self._server.start()
        self.url = f"http://127.0.0.1:{port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point the storage client here."""
        return {"STORAGE_EMULATOR_HOST": self.url, "GOOGLE_CLOUD_PROJECT": "local"}

    def client(self) -> Client:
        """The real client."""
        options = {"api_endpoint": self.url}
        return Client(project="local", credentials=AnonymousCredentials(), client_options=options)

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
