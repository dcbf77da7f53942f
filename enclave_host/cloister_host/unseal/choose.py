"""Which unseal provider the settings name."""

from __future__ import annotations

from cloister_host.settings import HostSettings
from cloister_host.unseal import Unseal
from cloister_host.unseal.file import FileUnseal

__all__ = ["create_unseal", "open_unseal"]


def create_unseal(settings: HostSettings) -> Unseal:
    """Set the provider up for a new deployment.

    Raises:
        ConfigurationError: It is set up already.
    """
    return FileUnseal.create(settings.unseal_key)


def open_unseal(settings: HostSettings) -> Unseal:
    """The provider that sealed the root key of this deployment."""
    return FileUnseal(settings.unseal_key)
