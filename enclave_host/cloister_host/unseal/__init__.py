"""How a sealed root key becomes a root key again, on the machines that may have it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Unseal"]


class Unseal(Protocol):
    """Port: something outside the store that wraps the root key.

    Attributes:
        name: What the attested configuration calls it.
    """

    @property
    def name(self) -> str:
        """What the attested configuration calls it."""

    def wrap(self, plaintext: bytes) -> bytes:
        """Wrap a few dozen bytes; what comes back may be stored anywhere."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """Unwrap them again.

        Raises:
            ConfigurationError: They were changed, or wrapped by another provider.
            UnavailableError: The provider cannot answer now.
        """
