"""One certificate authority for the servers on this machine."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import Self

import trustme

__all__ = ["LocalCA"]


class LocalCA:
    """A throw-away authority; its certificate lies in a file while the context lasts."""

    def __init__(self) -> None:
        self._ca = trustme.CA(organization_name="Local cloud")
        self._folder = tempfile.TemporaryDirectory(prefix="local-ca-")
        self.pem_path = Path(self._folder.name) / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.pem_path))

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self._ca.cert_pem.bytes()

    def server_context(self, *names: str) -> ssl.SSLContext:
        """A TLS server's context with a certificate for the names, "localhost" and 127.0.0.1."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*names, "localhost", "127.0.0.1").configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A TLS client's context that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.pem_path))

    def close(self) -> None:
        """Remove the file."""
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
