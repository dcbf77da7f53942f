"""Read a file that holds a secret, and write one, so that only its owner ever can."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloister.errors import ConfigurationError

__all__ = ["read_private", "write_private"]


def read_private(path: Path, *, what: str, limit: int) -> bytes:
    """The bytes of a regular file that nobody but its owner can reach.

    Args:
        path: The file; a symbolic link is refused.
        what: What it is called in errors.
        limit: Most bytes that are read. One more comes back from a file that is longer.

    Raises:
        ConfigurationError: It cannot be read, or others can reach it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(limit + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise ConfigurationError(
            f"the {what} cannot be read ({error.strerror})", hint=f"look at {path}"
        ) from None
    if stat.S_IMODE(mode) & 0o077 or not stat.S_ISREG(mode):
        raise ConfigurationError(f"the {what} can be read by others", hint=f"chmod 600 {path}")
    return content


def write_private(path: Path, content: bytes, *, what: str) -> None:
    """Write a new file that only its owner can read, down to the disk.

    Raises:
        ConfigurationError: The file exists, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(
            f"the {what} cannot be made ({error.strerror})", hint=f"look at {path}"
        ) from None
