"""Google Confidential Space: a token from the launcher's socket inside the container."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Final

from cloister.attestation import Format, report_data
from cloister.errors import UnavailableError

__all__ = ["SOCKET", "ConfidentialSpaceAttester"]

SOCKET: Final = Path("/run/container_launcher/teeserver.sock")
_MAX_TOKEN_BYTES: Final = 64 * 1024


class ConfidentialSpaceAttester:
    """Evidence of this container; PKI tokens by default, so that clients need no rotating keys.

    Args:
        audience: Who the token is for; `cloister:<deployment>` of the statement if empty (PROTOCOL 4).
        token_type: `PKI` or `OIDC`.
        path: The launcher's socket.
    """

    format: Final = Format.GCP_CONFIDENTIAL_SPACE

    def __init__(
        self,
        *,
        audience: str = "",
        token_type: str = "PKI",  # noqa: S107 (a kind, not a secret)
        path: Path = SOCKET,
        timeout_seconds: float = 10,
    ) -> None:
        self._audience = audience
        self._token_type = token_type
        self._path = path
        self._timeout_seconds = timeout_seconds

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """A token whose `eat_nonce` is the digest of the statement.

        Raises:
            UnavailableError: The launcher does not answer with a token.
        """
        request = {
            "audience": self._audience or _audience_of(statement),
            "token_type": self._token_type,
            "nonces": [report_data(self.format, statement, nonce)["nonce"].decode()],
        }
        connection = _UnixConnection(self._path, timeout_seconds=self._timeout_seconds)
        try:
            connection.request(
                "POST", "/v1/token", json.dumps(request).encode(), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            token = response.read(_MAX_TOKEN_BYTES + 1)
        except (OSError, http.client.HTTPException):
            raise UnavailableError(
                "the Confidential Space launcher does not answer",
                hint="is this container started by Confidential Space?",
            ) from None
        finally:
            connection.close()
        if response.status != http.client.OK or len(token) > _MAX_TOKEN_BYTES:
            raise UnavailableError(f"the Confidential Space launcher answered {response.status}")
        return token.strip()


def _audience_of(statement: bytes) -> str:
    deployment = json.loads(statement).get("deployment")
    return f"cloister:{deployment}" if deployment else "cloister"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
