"""Unseal with a key management service of a cloud: the service keeps the key of the key.

Every wrap draws a data key, which the service wraps; the root key is encrypted under it here. The service is
told the place (deployment and generation), where it has a field for that, and it is bound here in any case.
"""

from __future__ import annotations

from typing import Final, Protocol

from cloister_host.unseal.wrapped import KEY_BYTES, NotOursError, Wrapped, changed

__all__ = ["CONTEXT", "DataKeys", "KmsUnseal"]

CONTEXT: Final = "cloister:root"
"""Name under which a service is told the place."""


class DataKeys(Protocol):
    """Port: a key of one service that wraps data keys.

    Attributes:
        provider: What the attested configuration calls the service.
        key: The full name of the key.
    """

    @property
    def provider(self) -> str:
        """What the attested configuration calls the service."""

    @property
    def key(self) -> str:
        """The full name of the key."""

    def draw(self, place: str) -> tuple[bytes, bytes]:
        """A new data key, and its wrapped form.

        Raises:
            ConfigurationError: The service refuses.
            UnavailableError: It does not answer.
        """

    def open(self, wrapped: bytes, place: str) -> bytes:
        """The data key again.

        Raises:
            ConfigurationError: The service refuses, or it is no data key of this place.
            UnavailableError: It does not answer.
        """

    def require_gone(self, wrapped: bytes) -> None:
        """Ask the service whether the key that wraps a data key was destroyed for good.

        Raises:
            ConfigurationError: It was not, or can still be brought back.
            UnavailableError: The service does not answer.
        """


class KmsUnseal:
    """Wraps under data keys that a service wraps."""

    def __init__(self, keys: DataKeys) -> None:
        self._keys = keys

    @property
    def name(self) -> str:
        """What the attested configuration calls it."""
        return self._keys.provider

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap under a new data key.

        Raises:
            ConfigurationError: The service refuses.
            UnavailableError: It does not answer.
        """
        key, handle = self._keys.draw(place)
        return Wrapped.seal(
            self._sound(key), plaintext, provider=self.name, name=self._keys.key, place=place, handle=handle
        )

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap with the data key that the service opens.

        Raises:
            ConfigurationError: The service refuses, or the bytes were changed or wrapped by another key.
            UnavailableError: It does not answer.
        """
        found = self._own(wrapped)
        return found.open(self._sound(self._keys.open(found.handle, place)), place)

    def renewed(self) -> KmsUnseal:
        """Every wrap has a data key of its own."""
        return self

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """See that the service has destroyed the key; only its administrators can do that.

        Raises:
            ConfigurationError: It has not.
            UnavailableError: It does not answer.
        """
        self._keys.require_gone(self._own(wrapped).handle)
        return True

    def _own(self, wrapped: bytes) -> Wrapped:
        found = Wrapped.parse(wrapped, provider=self.name)
        if found.key != self._keys.key:
            raise NotOursError(
                f"the root key was sealed under another key of {self.name}",
                hint=f"--unseal-option kms-key={found.key}",
            )
        return found

    def _sound(self, key: bytes) -> bytes:
        if len(key) != KEY_BYTES:
            raise changed(self.name)
        return key
