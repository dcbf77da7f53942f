"""Data keys wrapped by an RSA key of Azure Key Vault or of a managed HSM (RSA-OAEP-256).

Credentials are the machine's own (managed identity, workload identity). The service wraps and unwraps; it has
no field for the place, which is bound where the root key is encrypted under the data key.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.unseal.settings import KmsSettings
from cloister_host.unseal.wrapped import KEY_BYTES, changed

__all__ = ["AzureKeyVault"]

_KEY: Final = re.compile(r"(https://[a-z0-9.-]+(?::\d+)?)/keys/([A-Za-z0-9-]{1,127})/([A-Za-z0-9]{1,64})")
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})
_MIN_BITS: Final = 2048
# Of people: nobody's own login may unseal a deployment.
_LOGINS: Final = (
    "shared_token_cache",
    "visual_studio_code",
    "cli",
    "powershell",
    "developer_cli",
    "broker",
    "interactive_browser",
)


class AzureKeyVault:
    """One version of an RSA key.

    Raises:
        ConfigurationError: The key is not named with its version, or the extra `azure` is not installed.
    """

    provider: Final = "azure-keyvault"

    def __init__(self, settings: KmsSettings) -> None:
        named = _KEY.fullmatch(settings.key)
        if named is None:
            raise ConfigurationError(
                "the unseal provider `azure-keyvault` needs the identifier of a key, with its version",
                hint="--unseal-option kms-key=https://VAULT.vault.azure.net/keys/NAME/VERSION",
            )
        self.key: Final = settings.key
        self._name = named[2]
        self._keys, self._crypto, self._algorithm, self._errors = _clients(settings, vault=named[1])

    def draw(self, place: str) -> tuple[bytes, bytes]:  # noqa: ARG002 (of the port)
        """A data key that is drawn here, wrapped by the service."""
        key = os.urandom(KEY_BYTES)
        answer = self._ask(lambda: self._crypto.wrap_key(self._algorithm, key))
        if len(answer.encrypted_key) * 8 < _MIN_BITS:
            raise ConfigurationError("the key in the vault is no RSA key of 2048 bits or more")
        return key, bytes(answer.encrypted_key)

    def open(self, wrapped: bytes, place: str) -> bytes:  # noqa: ARG002 (of the port)
        """The data key again."""
        return bytes(self._ask(lambda: self._crypto.unwrap_key(self._algorithm, wrapped)).key)

    def require_gone(self, wrapped: bytes) -> None:  # noqa: ARG002 (of the port)
        """The vault has neither the key nor, purged, a deleted key of this name."""
        for look, where in ((self._keys.get_key, "in use"), (self._keys.get_deleted_key, "not purged")):
            try:
                look(self._name)
            except self._errors.ResourceNotFoundError:
                continue
            except self._errors.AzureError as error:
                raise self._failed(error) from None
            raise ConfigurationError(
                f"the key {self._name} of the vault can still be used, or brought back ({where})",
                hint="when nothing else is sealed under the key, delete and purge it in Key Vault",
            )

    def _ask(self, call: Any) -> Any:
        try:
            return call()
        except self._errors.AzureError as error:
            raise self._failed(error) from None
        except (ValueError, NotImplementedError) as error:  # the client checks what the key allows
            raise ConfigurationError(
                f"the key in the vault cannot wrap ({type(error).__name__})",
                hint="an RSA key with the operations wrapKey and unwrapKey is needed",
            ) from None

    def _failed(self, error: Any) -> Exception:
        """Our error for one of the client's. Its message can hold names and is left out."""
        status = getattr(error, "status_code", None)
        if status == 400:  # noqa: PLR2004 (bad request)
            return changed(self.provider)
        if isinstance(error, self._errors.ClientAuthenticationError) and status is None:
            return ConfigurationError(
                "this machine gets no token for Key Vault",
                hint="give it a managed identity or a workload identity with access to the key",
            )
        if status is None or status in _BUSY:
            return UnavailableError(
                f"Key Vault does not answer ({status or type(error).__name__})",
                hint="look at the network and the vault's firewall",
                retryable=True,
            )
        return ConfigurationError(
            f"Key Vault refuses ({status})",
            hint="look at kms-key, whether it is enabled, and the roles of this machine's identity",
        )


def _clients(settings: KmsSettings, *, vault: str) -> tuple[Any, Any, Any, Any]:
    try:
        from azure.core import exceptions  # noqa: PLC0415 (the extra `azure`, and slow)
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 (as above)
        from azure.keyvault.keys import KeyClient  # noqa: PLC0415 (as above)
        from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm  # noqa: PLC0415 (as above)
    except ImportError:
        raise ConfigurationError(
            "the Key Vault client is not installed", hint="pip install 'cloister-host[azure]'"
        ) from None
    credential = DefaultAzureCredential(**{f"exclude_{name}_credential": True for name in _LOGINS})
    options = {
        "connection_timeout": settings.timeout_seconds,
        "read_timeout": settings.timeout_seconds,
        "retry_total": settings.attempts - 1,
        "retry_backoff_factor": 0.2,
    }
    keys = KeyClient(vault, credential, **options)
    crypto = CryptographyClient(settings.key, credential, **options)
    return keys, crypto, KeyWrapAlgorithm.rsa_oaep_256, exceptions
