"""Which unseal provider the settings name."""

from __future__ import annotations

from cloister.errors import ConfigurationError
from cloister_host.settings import HostSettings
from cloister_host.unseal import Unseal
from cloister_host.unseal.file import FileUnseal
from cloister_host.unseal.pkcs11 import Pkcs11Unseal
from cloister_host.unseal.shamir import ShamirUnseal
from cloister_host.unseal.tpm2 import Tpm2Unseal

__all__ = ["create_unseal", "open_unseal"]


def create_unseal(settings: HostSettings) -> Unseal:
    """Set the provider up for a new deployment.

    Raises:
        ConfigurationError: It is set up already, cannot be used, or no provider has this name.
        UnavailableError: It cannot answer now.
    """
    match settings.unseal:
        case "file":
            return FileUnseal.create(settings.unseal_key)
        case "pkcs11":
            return Pkcs11Unseal.create(settings.pkcs11)
        case "shamir":
            return ShamirUnseal.create(settings.shamir)
        case "tpm2":
            return Tpm2Unseal(settings.tpm2)
        case _:
            raise _unknown(settings.unseal)


def open_unseal(settings: HostSettings) -> Unseal:
    """The provider that sealed the root key of this deployment.

    Raises:
        ConfigurationError: Its settings are incomplete, or no provider has this name.
    """
    match settings.unseal:
        case "file":
            return FileUnseal(settings.unseal_key)
        case "pkcs11":
            return Pkcs11Unseal(settings.pkcs11)
        case "shamir":
            return ShamirUnseal(settings.shamir)
        case "tpm2":
            return Tpm2Unseal(settings.tpm2)
        case _:
            raise _unknown(settings.unseal)


def _unknown(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no unseal provider {name!r}", hint="--unseal file, pkcs11, shamir or tpm2"
    )
