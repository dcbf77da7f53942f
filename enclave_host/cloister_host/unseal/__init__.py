"""How a sealed root key becomes a root key again, on the machines that may have it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Unseal"]


class Unseal(Protocol):
    """Port: something outside the store that wraps the root key.

    What is wrapped is bound to a *place*: the deployment and the generation of its root key.

    Attributes:
        name: What the attested configuration calls it.
    """

    @property
    def name(self) -> str:
        """What the attested configuration calls it."""

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap a few hundred bytes; what comes back may be stored anywhere.

        Raises:
            ConfigurationError: The provider cannot be used as it is set up.
            UnavailableError: It cannot answer now.
        """

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap them again.

        Raises:
            ConfigurationError: They were changed, or wrapped by another provider or for another place.
            UnavailableError: The provider cannot answer now.
        """

    def renewed(self) -> Unseal:
        """The provider with a new wrapping key, where it has one of its own: for the next generation.

        Raises:
            ConfigurationError: It cannot be made.
            UnavailableError: The provider cannot answer now.
        """

    def destroy(self, wrapped: bytes, place: str) -> bool:
        """See to it that these bytes never unwrap again, wherever copies of them are.

        Doing it twice does no harm.

        Returns:
            Whether the provider vouches for that; what it cannot see, operators have to say.

        Raises:
            ConfigurationError: They still unwrap, and somebody has to act at the provider first.
            UnavailableError: The provider cannot answer now.
        """
