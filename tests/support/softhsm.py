"""Tokens of SoftHSM, a PKCS #11 module in software, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support import require

__all__ = ["PIN", "add_token", "configure", "library"]

PIN = "98765432"
_INSTALL = "install softhsm2"
_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)


def library() -> Path:
    """The module, or a skip."""
    require.module("pkcs11", install="pip install python-pkcs11")
    found = next((path for path in map(Path, _LIBRARIES) if path.exists()), None)
    return found or require.missing("SoftHSM", install=_INSTALL)


def configure(folder: Path) -> Path:
    """Write a configuration whose tokens stand in `folder`; SOFTHSM2_CONF has to name it."""
    (folder / "tokens").mkdir()
    path = folder / "softhsm2.conf"
    path.write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    return path


def add_token(configuration: Path, label: str) -> None:
    """Make an empty token with the PIN of this module."""
    tool = require.binary("softhsm2-util", install=_INSTALL)
    options = ("--init-token", "--free", "--label", label, "--so-pin", "01234567", "--pin", PIN)
    environment = {**os.environ, "SOFTHSM2_CONF": str(configuration)}
    subprocess.run([tool, *options], env=environment, capture_output=True, check=True)
