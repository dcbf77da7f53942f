"""Application default credentials, through `google-auth`, where there is no metadata server.

Source: https://google.aip.dev/auth/4110
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cloister.errors import CloisterError, ConfigurationError, IdentityError, UnavailableError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

__all__ = ["access_token", "identity_token", "is_named", "load"]

T = TypeVar("T")

MAX_FILE_BYTES: Final = 64 * 1024
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_GCLOUD_FILE: Final = "application_default_credentials.json"
_NOT_FOR_OTHERS: Final = IdentityError(
    "these Google credentials give no token for another audience",
    hint="use a service account: gcloud auth application-default login --impersonate-service-account=EMAIL; "
    "outside Google, bind your platform's own token (CLOISTER_IDENTITY=token)",
)


def is_named() -> bool:
    """Whether the environment names a file with credentials."""
    return bool(os.environ.get(_VARIABLE))


def load() -> Credentials:
    """The credentials that the environment names, or that gcloud keeps for this user.

    Raises:
        IdentityError: There are none, or they cannot be used.
        ConfigurationError: `google-auth` is not installed.
    """

    def find() -> Any:
        from google.auth import impersonated_credentials  # noqa: PLC0415 (0.2 s, for those who use it)
        from google.oauth2 import credentials, service_account  # noqa: PLC0415 (as above)

        path = Path(os.environ.get(_VARIABLE) or _gcloud_folder() / _GCLOUD_FILE)
        if not path.is_file():
            raise IdentityError(
                "there are no Google credentials",
                hint=f"run it on Google Cloud under a service account, or set {_VARIABLE}",
            )
        document = json.loads(path.read_bytes()[:MAX_FILE_BYTES])
        # Each kind by name: a file of another kind could lead to anybody's endpoint, or run a program.
        read: dict[str, Callable[..., Any]] = {
            "service_account": service_account.Credentials.from_service_account_info,
            "impersonated_service_account": (
                impersonated_credentials.Credentials.from_impersonated_service_account_info
            ),
            "authorized_user": credentials.Credentials.from_authorized_user_info,
        }
        return read[document["type"]](document, scopes=[SCOPE])

    credentials: Credentials = _call(find)
    return credentials


def identity_token(credentials: Credentials, audience: str) -> str:
    """An ID token of the service account that the credentials are of, or impersonate.

    Raises:
        IdentityError: They are of none, or Google refused.
        UnavailableError: Google did not answer.
    """

    def fetch() -> str:
        from google.auth import impersonated_credentials as impersonated  # noqa: PLC0415 (as in `load`)
        from google.oauth2 import service_account  # noqa: PLC0415 (as in `load`)

        kind: Any
        if isinstance(credentials, service_account.Credentials):
            kind = service_account.IDTokenCredentials
            source = kind(
                credentials.signer,
                service_account_email=credentials.service_account_email,
                token_uri=credentials._token_uri,  # noqa: SLF001 (as google-auth itself makes one from the other)
                target_audience=audience,
            )
        elif isinstance(credentials, impersonated.Credentials):
            kind = impersonated.IDTokenCredentials
            source = kind(credentials, target_audience=audience, include_email=True)
        else:
            raise _NOT_FOR_OTHERS
        return _refreshed(source)

    return _call(fetch)


def access_token(credentials: Credentials) -> str:
    """An access token of the credentials; errors as `identity_token`."""
    return _call(lambda: _refreshed(credentials))


def _gcloud_folder() -> Path:
    named = os.environ.get("CLOUDSDK_CONFIG")
    return Path(named) if named else Path.home() / ".config" / "gcloud"


def _refreshed(credentials: Any) -> str:
    from google.auth.transport.requests import Request  # noqa: PLC0415 (as in `load`)

    if not credentials.token or not credentials.valid:
        credentials.refresh(Request())
    return str(credentials.token)


def _call(call: Callable[[], T]) -> T:
    """Call google-auth; its errors without their messages, which name accounts and show answers."""
    try:
        from google.auth import exceptions  # noqa: PLC0415 (as in `load`)
    except ImportError:
        raise ConfigurationError("google-auth is not installed", hint="pip install 'cloister[gcp]'") from None
    failure: CloisterError
    try:
        return call()
    except exceptions.TransportError:
        failure = UnavailableError("Google did not answer")
    except exceptions.RefreshError as error:
        passing = bool(getattr(error, "retryable", False))
        failure = (
            UnavailableError("Google did not answer")
            if passing
            else IdentityError(
                "Google gave these credentials no token",
                hint="check that the key is not disabled, and roles/iam.serviceAccountOpenIdTokenCreator",
            )
        )
    except (exceptions.GoogleAuthError, ValueError, KeyError, TypeError, AttributeError, OSError):
        failure = IdentityError(
            "the Google credentials cannot be used", hint=f"check the file that {_VARIABLE} names"
        )
    raise failure
