"""Unseal with a key in a file: for development, and for machines whose disk is trusted anyway."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError
from cloister_host.unseal.private import read_private, write_private
from cloister_host.unseal.wrapped import KEY_BYTES, Wrapped, changed

__all__ = ["FileUnseal"]

_NAME_BYTES: Final = 4


class FileUnseal:
    """Wraps under 32 random bytes in a file that only its owner can read.

    Args:
        path: The file. Keys of later generations stand beside it, under names of their own.
        own: Which of them this object wraps with, if not the first.
    """

    name: Final = "file"

    def __init__(self, path: Path, *, own: str | None = None) -> None:
        self._first = path
        self._path = path if own is None else path.with_name(own)

    @classmethod
    def create(cls, path: Path) -> FileUnseal:
        """Draw the key into a new file.

        Raises:
            ConfigurationError: The file exists, or cannot be written.
        """
        write_private(path, os.urandom(KEY_BYTES), what="unseal key file")
        return cls(path)

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap under the file's key (AES-256-GCM)."""
        key = _read(self._path)
        return Wrapped.seal(key, plaintext, provider=self.name, name=self._path.name, place=place)

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap under the file's key.

        Raises:
            ConfigurationError: The file is not readable by its owner alone, or holds another key.
        """
        found = Wrapped.parse(wrapped, provider=self.name)
        return found.open(_read(self._beside(found)), place)

    def renewed(self) -> FileUnseal:
        """Draw another key into a file beside the first."""
        first = self._first
        own = f"{first.stem}-{os.urandom(_NAME_BYTES).hex()}{first.suffix}"
        FileUnseal.create(first.with_name(own))
        return type(self)(first, own=own)

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """Delete the file. A copy that somebody made of it is the operators' to find."""
        path = self._beside(Wrapped.parse(wrapped, provider=self.name))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the unseal key file cannot be deleted ({error.strerror})", hint=f"look at {path}"
            ) from None
        return True

    def _beside(self, found: Wrapped) -> Path:
        """The file that is named in a wrapped root key, which anyone may have written."""
        first = self._first
        if found.key != first.name and not re.fullmatch(
            rf"{re.escape(first.stem)}-[0-9a-f]{{{2 * _NAME_BYTES}}}{re.escape(first.suffix)}", found.key
        ):
            raise changed(self.name)
        return first.with_name(found.key)


def _read(path: Path) -> bytes:
    key = read_private(path, what="unseal key file", limit=KEY_BYTES)
    if len(key) != KEY_BYTES:
        raise ConfigurationError("the unseal key file is damaged", hint=f"look at {path}")
    return key
