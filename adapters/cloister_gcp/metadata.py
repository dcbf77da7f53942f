"""The metadata server: who this workload is, told by the machine or the runtime that it runs on.

Source: https://cloud.google.com/compute/docs/instances/verifying-instance-identity and
https://cloud.google.com/run/docs/container-contract#metadata-server
"""

from __future__ import annotations

import json
import os
import socket
from typing import Final
from urllib.parse import quote

from cloister.errors import ConfigurationError, IdentityError, UnavailableError
from cloister.rest import get

__all__ = ["access_token", "identity_token", "is_here"]

DEFAULT_HOST: Final = "metadata.google.internal"
PORT: Final = 80
PROBE_SECONDS: Final = 3.0
ACCOUNT: Final = "/computeMetadata/v1/instance/service-accounts/default/"
_FLAVOR: Final = "Metadata-Flavor"
_OK: Final = 200
_NOT_FOUND: Final = 404


def is_here() -> bool:
    """Whether there is a metadata server; `NO_GCE_CHECK=true` says that there is none."""
    if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
        return False
    host, _, port = _host().rpartition(":") if ":" in _host() else (_host(), "", "")
    try:
        socket.create_connection((host, int(port or PORT)), timeout=PROBE_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def identity_token(audience: str) -> str:
    """An ID token of the workload's service account, with what Google says of the machine.

    Raises:
        IdentityError: The workload has no service account.
        UnavailableError: The metadata server did not answer.
    """
    return _read(f"identity?audience={quote(audience, safe='')}&format=full")


def access_token() -> str:
    """An access token of the workload's service account; errors as `identity_token`."""
    try:
        token = json.loads(_read("token"))["access_token"]
    except (ValueError, KeyError, TypeError):
        raise IdentityError("the metadata server gave no access token") from None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise IdentityError("the metadata server gave no access token")
    return token


def _host() -> str:
    """As Google's own libraries find it."""
    host = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT") or DEFAULT_HOST
    if "/" in host or "@" in host or not host.isprintable():
        raise ConfigurationError("GCE_METADATA_HOST is no host", hint="host or host:port")
    return host


def _read(what: str) -> str:
    answer = get(f"http://{_host()}{ACCOUNT}{what}", {_FLAVOR: "Google"}, who="Google", plain_http=True)
    # Anything that answers under the name, a captive portal say, has not got this header.
    if answer.headers.get(_FLAVOR.lower()) != "Google":
        raise UnavailableError("what answers is not Google's metadata server", retryable=False)
    if answer.status == _NOT_FOUND:
        raise IdentityError(
            "this workload has no service account", hint="attach one to the service or machine"
        )
    if answer.status != _OK:
        raise IdentityError(
            f"the metadata server gave no token ({answer.status})", hint="check the service account's scopes"
        )
    try:
        return answer.body.decode("ascii")
    except UnicodeDecodeError:
        raise IdentityError("the metadata server gave no token") from None
