"""Who a workload on Azure is: a token of its managed identity, or an API key in Key Vault.

A token says who signs in by the identity itself: no credential is stored anywhere. Entra issues tokens for
registered applications only, so one application stands for each deployment; see `docs/azure.md`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cloister.errors import ConfigurationError, IdentityError, UnavailableError
from cloister.rest import get
from cloister.workload import Clock, KeptKey, KeptTokens, TokenAndEnd, token_and_end
from cloister_azure.managed import access_token

if TYPE_CHECKING:
    from cloister.config import Settings
    from cloister.protocol import RequestBinding

__all__ = ["AzureIdentity", "StoredApiKey", "stored_key", "workload"]

PLACE: Final = "{deployment}"
VAULT_VERSION: Final = "7.4"
_AUDIENCE: Final = re.compile(r"(?:api|https)://[A-Za-z0-9._~/-]*\{deployment\}[A-Za-z0-9._~/-]*")
_SECRET: Final = re.compile(
    r"https://[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]\.(?P<domain>vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net)"
    r"(?P<path>/secrets/[A-Za-z0-9-]{1,127}(?:/[0-9a-f]{32})?)"
)
_OK: Final = 200
_REFUSED: Final = ("Key Vault refused", "the identity needs the role Key Vault Secrets User on the secret")
_REFUSALS: Final = {
    401: _REFUSED,
    403: _REFUSED,
    404: ("there is no such secret in Key Vault", "check CLOISTER_API_KEY_SECRET"),
}


class AzureIdentity:
    """The managed identity of this workload.

    Args:
        audience: Application ID URI that stands for a deployment, `{deployment}` in the place of its name.
        client_id: Which user-assigned identity; by default AZURE_CLIENT_ID, or the system-assigned one.
        clock: For tests.

    Raises:
        ConfigurationError: The audience is no such URI.
    """

    def __init__(self, *, audience: str, client_id: str | None = None, clock: Clock = time.time) -> None:
        # Without the name in it, a token would be good for every deployment that accepts the URI.
        if not _AUDIENCE.fullmatch(audience):
            raise ConfigurationError(
                f"CLOISTER_TOKEN_AUDIENCE is no URI with {PLACE} in the place of the deployment's name",
                hint=f"api://ENTRA-TENANT-ID/{PLACE}",
            )
        self._audience = audience
        self._client_id = client_id
        self._tokens = KeptTokens(self._fetch, clock=clock)

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (a token is for any request)
        """A token for this deployment and no other, as credential members.

        Raises:
            IdentityError: Azure gives this workload no token.
            ConfigurationError: Its endpoint is of a kind that is not known.
            UnavailableError: Azure did not answer.
        """
        return {"type": "oidc", "value": self._tokens.get(self._audience.replace(PLACE, deployment))}

    def _fetch(self, audience: str) -> TokenAndEnd:
        return token_and_end(access_token(audience, client_id=self._client_id), audience=audience)

    def __repr__(self) -> str:
        return "AzureIdentity(<hidden>)"


class StoredApiKey:
    """An API key kept in Key Vault.

    Args:
        url: The secret's identifier, `https://VAULT.vault.azure.net/secrets/NAME`, or a version of it;
            without one it is the latest.
        client_id: As in `AzureIdentity`.
        endpoint: Where the vault answers, if that is not its own name: a loopback port.
        clock: For tests.

    Raises:
        ConfigurationError: It is no such identifier.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        endpoint: str | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        found = _SECRET.fullmatch(url)
        if found is None:
            raise ConfigurationError(
                "the API key's URL is not one of a secret in Key Vault",
                hint="https://VAULT.vault.azure.net/secrets/NAME",
            )
        # The token is sent to vaults of Azure alone.
        base = endpoint or url.removesuffix(found["path"])
        self._url = f"{base}{found['path']}?api-version={VAULT_VERSION}"
        self._resource = f"https://{found['domain']}"
        self._client_id = client_id
        self._key = KeptKey(self._read, where="the secret in Key Vault", clock=clock)

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:
        """The key as credential members.

        Raises:
            IdentityError: Azure does not let this workload read the key, or there is none.
            ConfigurationError: What is stored is no API key.
            UnavailableError: Azure did not answer.
        """
        return self._key.get().credential(deployment=deployment, request=request)

    def _read(self) -> str:
        token = access_token(self._resource, client_id=self._client_id)
        answer = get(self._url, {"Authorization": f"Bearer {token}"}, who="Key Vault")
        if answer.status != _OK:
            message, hint = _REFUSALS.get(
                answer.status, (f"Key Vault gave no secret ({answer.status})", "check that it is enabled")
            )
            raise IdentityError(message, hint=hint)
        try:
            value = json.loads(answer.body)["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            value = None
        if not isinstance(value, str):
            raise UnavailableError("Key Vault's answer is malformed", retryable=False)
        return value

    def __repr__(self) -> str:
        return "StoredApiKey(<hidden>)"


def workload(settings: Settings) -> AzureIdentity:
    """The identity `azure` of the settings.

    Raises:
        ConfigurationError: They do not say what stands for a deployment in Entra.
    """
    if settings.token_audience is None:
        raise ConfigurationError(
            "identity `azure` needs CLOISTER_TOKEN_AUDIENCE", hint=f"api://ENTRA-TENANT-ID/{PLACE}"
        )
    return AzureIdentity(audience=settings.token_audience)


def stored_key(name: str) -> StoredApiKey:
    """The identity `key` of the settings, where the key is kept in Key Vault."""
    return StoredApiKey(name)
