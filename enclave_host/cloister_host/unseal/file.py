"""Unseal with a key in a file: for development, and for machines whose disk is trusted anyway."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError

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
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigurationError(
                f"the unseal key file cannot be made ({error.strerror})", hint=f"look at {path}"
            ) from None
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
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                key = file.read(KEY_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(
                f"the unseal key file cannot be read ({error.strerror})", hint=f"look at {self._path}"
            ) from None
        if stat.S_IMODE(mode) & 0o077 or not stat.S_ISREG(mode):
            raise ConfigurationError(
                "the unseal key file can be read by others", hint=f"chmod 600 {self._path}"
            )
        if len(key) != KEY_BYTES:
            raise ConfigurationError("the unseal key file is damaged", hint=f"look at {self._path}")
        return AESGCM(key)
