"""Who a workload on Google Cloud is: an ID token of its service account, or an API key in Secret Manager.

A token says who signs in by the service account itself: no credential is stored anywhere. On Cloud Run,
Compute Engine and GKE it comes from the metadata server; elsewhere from application default credentials.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cloister.envelope.process import on_drop
from cloister.errors import ConfigurationError, IdentityError, UnavailableError
from cloister.identity import audience
from cloister.rest import get
from cloister.workload import Clock, KeptKey, KeptTokens, TokenAndEnd, token_and_end
from cloister_gcp import credentials as adc
from cloister_gcp import metadata

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from cloister.config import Settings
    from cloister.protocol import RequestBinding

__all__ = ["GcpIdentity", "StoredApiKey", "stored_key", "workload"]

_SECRET: Final = re.compile(
    r"projects/[A-Za-z0-9][A-Za-z0-9.:_-]*(?:/locations/(?P<location>[a-z0-9-]+))?/secrets/[A-Za-z0-9_-]{1,255}"
    r"(?P<version>/versions/[A-Za-z0-9_-]+)?"
)
_ENDPOINT_VARIABLE: Final = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
_OK: Final = 200
_REFUSALS: Final = {
    400: ("the version of the secret in Google Cloud cannot be read", "check that it is enabled"),
    401: ("Google refused", "check the service account"),
    403: ("Google refused", "the service account needs roles/secretmanager.secretAccessor on the secret"),
    404: ("there is no such secret in Google Cloud", "check CLOISTER_API_KEY_SECRET"),
}


class _Account:
    """The service account that this code runs as: by the metadata server, or by credentials in a file."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._given = credentials
        self.forget()
        on_drop(self)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._credentials = self._given

    def identity_token(self, audience_: str) -> str:
        credentials = self._found()
        if credentials is None:
            return metadata.identity_token(audience_)
        return adc.identity_token(credentials, audience_)

    def access_token(self) -> str:
        credentials = self._found()
        return metadata.access_token() if credentials is None else adc.access_token(credentials)

    def _found(self) -> Credentials | None:
        """The credentials to use; None is for the metadata server's."""
        with self._lock:
            if self._credentials is None and (adc.is_named() or not metadata.is_here()):
                self._credentials = adc.load()
            return self._credentials


class GcpIdentity:
    """The identity of the service account that this code runs as.

    Args:
        credentials: Your own, of `google-auth`: a service account's, or such as impersonate one.
        clock: For tests.
    """

    def __init__(self, *, credentials: Credentials | None = None, clock: Clock = time.time) -> None:
        self._account = _Account(credentials)
        self._tokens = KeptTokens(self._fetch, clock=clock)

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:  # noqa: ARG002 (a token is for any request)
        """A token for this deployment and no other, as credential members.

        Raises:
            IdentityError: Google does not give this workload a token.
            ConfigurationError: `google-auth` is needed and not installed.
            UnavailableError: Google did not answer.
        """
        return {"type": "oidc", "value": self._tokens.get(audience(deployment))}

    def _fetch(self, audience_: str) -> TokenAndEnd:
        return token_and_end(self._account.identity_token(audience_), audience=audience_)

    def __repr__(self) -> str:
        return "GcpIdentity(<hidden>)"


class StoredApiKey:
    """An API key kept in Secret Manager.

    Args:
        name: `projects/P/secrets/S`, or a version of it; without one it is the latest.
        credentials: As in `GcpIdentity`.
        clock: For tests.

    Raises:
        ConfigurationError: It is no such name.
    """

    def __init__(
        self, name: str, *, credentials: Credentials | None = None, clock: Clock = time.monotonic
    ) -> None:
        found = _SECRET.fullmatch(name)
        if found is None:
            raise ConfigurationError(
                "the API key's name is not one of Secret Manager",
                hint="projects/PROJECT/secrets/NAME, or .../versions/VERSION",
            )
        region = f".{found['location']}.rep" if found["location"] else ""
        base = os.environ.get(_ENDPOINT_VARIABLE) or f"https://secretmanager{region}.googleapis.com"
        version = "" if found["version"] else "/versions/latest"
        self._url = f"{base.rstrip('/')}/v1/{name}{version}:access"
        self._account = _Account(credentials)
        self._key = KeptKey(self._read, where="the secret in Google Cloud", clock=clock)

    def credential(self, *, deployment: str, request: RequestBinding) -> Mapping[str, Any]:
        """The key as credential members.

        Raises:
            IdentityError: Google does not let this service account read the key, or there is none.
            ConfigurationError: What is stored is no API key.
            UnavailableError: Google did not answer.
        """
        return self._key.get().credential(deployment=deployment, request=request)

    def _read(self) -> str:
        bearer = {"Authorization": f"Bearer {self._account.access_token()}", "Accept": "application/json"}
        answer = get(self._url, bearer, who="Google")
        if answer.status != _OK:
            message, hint = _REFUSALS.get(
                answer.status, (f"Google gave no secret ({answer.status})", "check the name and the role")
            )
            raise IdentityError(message, hint=hint)
        try:
            return base64.b64decode(json.loads(answer.body)["payload"]["data"], validate=True).decode("ascii")
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
            raise UnavailableError("Secret Manager's answer is malformed", retryable=False) from None

    def __repr__(self) -> str:
        return "StoredApiKey(<hidden>)"


def workload(settings: Settings) -> GcpIdentity:  # noqa: ARG001 (the cloud says it all)
    """The identity `gcp` of the settings."""
    return GcpIdentity()


def stored_key(name: str) -> StoredApiKey:
    """The identity `key` of the settings, where the key is kept in Secret Manager."""
    return StoredApiKey(name)
