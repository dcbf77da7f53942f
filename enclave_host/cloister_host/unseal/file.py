"""Unseal with a key in a file: for development, and for machines whose disk is trusted anyway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError
from cloister_host.unseal.private import read_private, write_private

__all__ = ["FileUnseal"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_AAD: Final = b"cloister.unseal.file.v1"


class FileUnseal:
    """Wraps under 32 random bytes in a file that only its owner can read."""

    name: Final = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path) -> FileUnseal:
        """Draw the key into a new file.

        Raises:
            ConfigurationError: The file exists, or cannot be written.
        """
        write_private(path, os.urandom(KEY_BYTES), what="unseal key file")
        return cls(path)

    def wrap(self, plaintext: bytes) -> bytes:
        """Wrap under the file's key (AES-256-GCM)."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead().encrypt(nonce, plaintext, _AAD)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Unwrap under the file's key.

        Raises:
            ConfigurationError: The file is not readable by its owner alone, or holds another key.
        """
        try:
            return self._aead().decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _AAD)
        except (InvalidTag, ValueError):
            raise ConfigurationError(
                "the root key does not unseal with this key file", hint=f"look at {self._path}"
            ) from None

    def _aead(self) -> AESGCM:
        key = read_private(self._path, what="unseal key file", limit=KEY_BYTES)
        if len(key) != KEY_BYTES:
            raise ConfigurationError("the unseal key file is damaged", hint=f"look at {self._path}")
        return AESGCM(key)
