"""Tokens of the managed identity that Azure gave this workload.

App Service, Functions and Container Apps name an endpoint of their own in `IDENTITY_ENDPOINT`; virtual
machines and AKS nodes have the instance metadata service at a fixed address.

Source: https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference and
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

import json
import os
from typing import Any, Final
from urllib.parse import urlencode

from cloister.errors import CloisterError, ConfigurationError, IdentityError, UnavailableError
from cloister.rest import Answer, get

__all__ = ["access_token"]

APP_SERVICE_VERSION: Final = "2019-08-01"
IMDS_VERSION: Final = "2018-02-01"
IMDS: Final = "http://169.254.169.254"
IMDS_PATH: Final = "/metadata/identity/oauth2/token"
CLIENT_ID: Final = "AZURE_CLIENT_ID"
IMDS_VARIABLE: Final = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
_OK: Final = 200
_PASSING: Final = frozenset({404, 410})
"""What the metadata service answers while it starts or is replaced."""
_KNOWN: Final = (
    (
        ("AADSTS500011", "invalid_resource"),
        "Entra knows no application with this Application ID URI",
        "register one whose URI is CLOISTER_TOKEN_AUDIENCE with the deployment's name in it: docs/azure.md",
    ),
    (
        ("AADSTS501051",),
        "the application in Entra does not let this identity in",
        "give it an app role there, or do not require assignment",
    ),
)
"""What Entra's refusals mean, by what tells them apart."""


def access_token(resource: str, *, client_id: str | None = None) -> str:
    """A token of this workload's identity for a resource; its issuer is asked anew each time.

    Args:
        resource: An Application ID URI.
        client_id: Which user-assigned identity; by default AZURE_CLIENT_ID, or the system-assigned one.

    Raises:
        IdentityError: Azure gives this workload no such token.
        ConfigurationError: It has an endpoint of a kind that is not known here.
        UnavailableError: Azure did not answer.
    """
    asked = {"resource": resource}
    if chosen := client_id or os.environ.get(CLIENT_ID):
        asked["client_id"] = chosen
    answer = _ask(asked)
    if answer.status in _PASSING:
        raise UnavailableError(f"Azure did not answer ({answer.status})")
    document = _read(answer.body)
    if answer.status != _OK:
        raise _refusal(answer.status, document)
    token = document.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise IdentityError("the managed identity's endpoint gave no token")
    return token


def _ask(asked: dict[str, str]) -> Answer:
    endpoint, header = os.environ.get("IDENTITY_ENDPOINT"), os.environ.get("IDENTITY_HEADER")
    if not endpoint:
        base = (os.environ.get(IMDS_VARIABLE) or IMDS).rstrip("/")
        url = f"{base}{IMDS_PATH}?{urlencode({'api-version': IMDS_VERSION, **asked})}"
        return get(url, {"Metadata": "true"}, who="Azure", plain_http=True)
    if not header or not header.isascii() or not header.isprintable():
        # Azure Arc and Service Fabric set one too, and want other proofs.
        raise ConfigurationError(
            "IDENTITY_ENDPOINT is set without IDENTITY_HEADER",
            hint="managed identities of App Service, Functions, Container Apps, machines and AKS are known",
        )
    url = f"{endpoint}?{urlencode({'api-version': APP_SERVICE_VERSION, **asked})}"
    return get(url, {"X-IDENTITY-HEADER": header}, who="Azure", plain_http=True)


def _read(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _refusal(status: int, document: dict[str, Any]) -> CloisterError:
    """Azure's refusal without its text, which names tenants and applications."""
    text = " ".join(str(document.get(name)) for name in ("error", "error_description", "message"))
    for marks, message, hint in _KNOWN:
        if any(mark in text for mark in marks):
            return IdentityError(message, hint=hint)
    return IdentityError(
        f"Azure gives this workload no token ({status})",
        hint=f"assign it a managed identity; if it has several, say which one in {CLIENT_ID}",
    )
