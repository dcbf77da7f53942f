"""The form of a wrapped root key: AES-256-GCM, with the name of the key that wraps it."""

from __future__ import annotations

import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError
from cloister_host.store.canonical import canonical

__all__ = ["KEY_BYTES", "MAX_WRAPPED_BYTES", "NONCE_BYTES", "NotOursError", "Wrapped", "aad", "changed"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
MAX_WRAPPED_BYTES: Final = 16384


class Wrapped(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A wrapped root key, as it is stored.

    Attributes:
        provider: Who wrapped it.
        key: Which of the provider's keys wraps it; what that means is the provider's business.
        nonce: Of AES-GCM.
        sealed: The ciphertext and its tag.
        handle: What the provider needs beside it, such as the wrapped data key.
    """

    provider: str
    key: str
    nonce: bytes
    sealed: bytes
    handle: bytes = b""

    @classmethod
    def seal(
        cls, key: bytes, plaintext: bytes, *, provider: str, name: str, place: str, handle: bytes = b""
    ) -> bytes:
        """Encrypt under a key that the provider keeps; gives the stored form."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, plaintext, aad(provider, name, place))
        return msgspec.msgpack.encode(cls(provider, name, nonce, sealed, handle))

    @classmethod
    def parse(cls, wrapped: bytes, *, provider: str) -> Wrapped:
        """Read the stored form.

        Raises:
            ConfigurationError: It is none, or another provider's.
        """
        try:
            if len(wrapped) > MAX_WRAPPED_BYTES:
                raise changed(provider)
            found = msgspec.msgpack.decode(wrapped, type=cls)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise changed(provider) from None
        if found.provider != provider or len(found.nonce) != NONCE_BYTES:
            raise changed(provider)
        return found

    def open(self, key: bytes, place: str) -> bytes:
        """Decrypt it again.

        Raises:
            ConfigurationError: It was changed, or belongs to another key or place.
        """
        try:
            return AESGCM(key).decrypt(self.nonce, self.sealed, aad(self.provider, self.key, place))
        except (InvalidTag, ValueError):
            raise changed(self.provider) from None


def aad(provider: str, name: str, place: str) -> bytes:
    """What a wrapped root key is bound to."""
    return canonical(("cloister.unseal.v1", provider, name, place))


class NotOursError(ConfigurationError):
    """What was wrapped was changed, or is of another key, provider or place."""


def changed(provider: str) -> NotOursError:
    """The one error for bytes that do not unwrap."""
    return NotOursError(
        f"the root key does not unseal with this provider ({provider})",
        hint="the sealed root key was changed, or sealed by another key, provider or deployment",
    )
