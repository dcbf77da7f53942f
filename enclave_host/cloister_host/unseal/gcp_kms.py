"""Data keys wrapped by Google Cloud KMS, over the client's REST transport.

Credentials are the machine's own (application default credentials). In Confidential Space they come from a
workload identity pool, whose provider compares the attestation token with its condition: then the key is
released to the attested image alone.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.unseal.kms import CONTEXT
from cloister_host.unseal.settings import KmsSettings
from cloister_host.unseal.wrapped import KEY_BYTES, changed

__all__ = ["GcpKms"]

_KEY: Final = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
_MAX_DELAY_SECONDS: Final = 2.0


class _Handle(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The wrapped data key, and the version of the key that wraps it."""

    version: str
    ciphertext: bytes


class GcpKms:
    """One symmetric key of Cloud KMS.

    Raises:
        ConfigurationError: The key is not named in full, there are no credentials, or the extra `gcp` is not
            installed.
    """

    provider: Final = "gcp-kms"

    def __init__(self, settings: KmsSettings) -> None:
        if not _KEY.fullmatch(settings.key):
            raise ConfigurationError(
                "the unseal provider `gcp-kms` needs the resource name of a key",
                hint="--unseal-option kms-key=projects/P/locations/L/keyRings/R/cryptoKeys/K",
            )
        self.key: Final = settings.key
        self._client, self._checksum, self._options, self._api, self._auth = _client(settings)

    def draw(self, place: str) -> tuple[bytes, bytes]:
        """A data key that is drawn here, wrapped by the key's primary version."""
        key, aad = os.urandom(KEY_BYTES), _aad(place)
        answer = self._ask(
            "encrypt",
            name=self.key,
            plaintext=key,
            additional_authenticated_data=aad,
            plaintext_crc32c=self._checksum(key),
            additional_authenticated_data_crc32c=self._checksum(aad),
        )
        arrived = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not arrived or not self._intact(answer.ciphertext, answer.ciphertext_crc32c):
            raise UnavailableError(
                "what Cloud KMS was sent, or answered, was changed on the way", retryable=True
            )
        if not answer.name.startswith(f"{self.key}/cryptoKeyVersions/"):
            raise ConfigurationError("Cloud KMS answered with another key", hint="look at kms-key")
        return key, msgspec.msgpack.encode(_Handle(answer.name, answer.ciphertext))

    def open(self, wrapped: bytes, place: str) -> bytes:
        """The data key again."""
        ciphertext, aad = self._handle(wrapped).ciphertext, _aad(place)
        answer = self._ask(
            "decrypt",
            name=self.key,
            ciphertext=ciphertext,
            additional_authenticated_data=aad,
            ciphertext_crc32c=self._checksum(ciphertext),
            additional_authenticated_data_crc32c=self._checksum(aad),
        )
        if not self._intact(answer.plaintext, answer.plaintext_crc32c):
            raise UnavailableError("what Cloud KMS answered was changed on the way", retryable=True)
        return bytes(answer.plaintext)

    def require_gone(self, wrapped: bytes) -> None:
        """The version of the key that wraps it was destroyed."""
        version = self._handle(wrapped).version
        if not version.startswith(f"{self.key}/cryptoKeyVersions/"):
            raise changed(self.provider)
        state = self._ask("get_crypto_key_version", name=version).state.name
        if state == "DESTROYED":
            return
        raise ConfigurationError(
            f"{version} can still be used, or brought back ({state})",
            hint="when nothing else is sealed under that version, destroy it in Cloud KMS",
        )

    def _ask(self, operation: str, **request: Any) -> Any:
        try:
            return getattr(self._client, operation)(request=request, **self._options)
        except (self._api.ServiceUnavailable, self._api.TooManyRequests, self._api.InternalServerError,
                self._api.GatewayTimeout, self._api.RetryError, OSError) as error:  # fmt: skip
            raise self._silent(error) from None
        except self._api.GoogleAPICallError as error:
            status = _status(error)
            if status == "INVALID_ARGUMENT":
                raise changed(self.provider) from None
            raise ConfigurationError(
                f"Cloud KMS refuses ({status or type(error).__name__})",
                hint="look at kms-key, the state of its versions, and the roles of this machine's account",
            ) from None
        except self._auth.GoogleAuthError as error:
            raise self._silent(error) from None

    def _silent(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"Cloud KMS does not answer ({type(error).__name__})",
            hint="look at the network and this machine's credentials",
            retryable=True,
        )

    def _intact(self, data: bytes, checksum: int | None) -> bool:
        return checksum is not None and int(checksum) == self._checksum(data)

    def _handle(self, wrapped: bytes) -> _Handle:
        try:
            return msgspec.msgpack.decode(wrapped, type=_Handle)
        except (msgspec.MsgspecError, ValueError):
            raise changed(self.provider) from None


def _status(error: Any) -> str:
    """The name of the status; over REST the client knows the number alone, which several share."""
    try:
        return str(error.response.json()["error"]["status"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return ""


def _aad(place: str) -> bytes:
    return f"{CONTEXT}={place}".encode()


def _client(settings: KmsSettings) -> tuple[Any, Any, dict[str, Any], Any, Any]:
    try:
        import google.auth  # noqa: PLC0415 (the extra `gcp`, and slow)
        import google_crc32c  # noqa: PLC0415 (as above)
        from google.api_core import exceptions, retry  # noqa: PLC0415 (as above)
        from google.auth import exceptions as auth  # noqa: PLC0415 (as above)
        from google.cloud import kms  # noqa: PLC0415 (as above)
    except ImportError:
        raise ConfigurationError(
            "the Google Cloud KMS client is not installed", hint="pip install 'cloister-host[gcp]'"
        ) from None
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except auth.DefaultCredentialsError:
        raise ConfigurationError(
            "this machine has no Google Cloud credentials",
            hint="give it a service account or a workload identity, or set GOOGLE_APPLICATION_CREDENTIALS",
        ) from None
    client = kms.KeyManagementServiceClient(
        credentials=credentials,
        transport="rest",
        client_options={"api_endpoint": settings.endpoint.removeprefix("https://")}
        if settings.endpoint
        else None,
    )
    patience = retry.Retry(
        predicate=retry.if_exception_type(
            exceptions.ServiceUnavailable, exceptions.TooManyRequests, exceptions.InternalServerError
        ),
        initial=0.1,
        maximum=_MAX_DELAY_SECONDS,
        timeout=settings.timeout_seconds * settings.attempts,
    )
    options = {"retry": patience, "timeout": settings.timeout_seconds}
    return client, google_crc32c.value, options, exceptions, auth
