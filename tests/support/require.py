"""What a test needs from the machine it runs on.

A missing requirement skips the test and says what to install. With `CLOISTER_REQUIRE_ALL=1`, as in
continuous integration, it fails instead: nothing is skipped unnoticed there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from local_cloud import install

__all__ = [
    "azure_runtime",
    "azurite",
    "binary",
    "framework",
    "helm",
    "javascript",
    "missing",
    "module",
    "node",
    "python",
]


def missing(what: str, *, install: str) -> NoReturn:
    """Skip the running test, or fail it where everything is required."""
    reason = f"{what} is missing: {install}"
    if os.environ.get("CLOISTER_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def binary(name: str, *, install: str = "") -> Path:
    """Path of the program `name` from PATH or the system folders."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=search)
    if found is None:
        missing(f"the program {name}", install=install or f"install the system package that has {name}")
    return Path(found)


def module(name: str, *, install: str = "") -> None:
    """The Python module `name` can be imported."""
    if importlib.util.find_spec(name) is None:
        missing(f"the Python module {name}", install=install or f"pip install {name}")


def node(major: int = 20) -> Path:
    """Path of Node.js, at least of the given major version."""
    path = binary("node", install=f"install Node.js {major}")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < major:
        missing(f"Node.js {major}", install=f"found {version.strip()}")
    return path


def python(version: str) -> Path:
    """Path of a Python of this version, "3.13" say, from PATH or pyenv."""
    for candidate in _pythons(version):
        found = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if found.returncode == 0 and re.match(rf"Python {re.escape(version)}\b", found.stdout):
            return candidate
    missing(f"Python {version}", install=f"install python{version}, from the system or with pyenv")


def azurite() -> None:
    """Azurite is installed, and a Node.js to run it."""
    node()
    if install.azurite_script() is None:
        missing("Azurite", install="PYTHONPATH=examples python -m local_cloud.install azurite")


def azure_runtime() -> Path:
    """Path of the Python that has Microsoft's Functions runtime."""
    found = install.azure_python()
    if found is None:
        missing(
            "Microsoft's Functions runtime",
            install="PYTHONPATH=examples python -m local_cloud.install azure, with Python 3.13 at hand",
        )
    return found


def javascript() -> Path:
    """The folder `examples/javascript`, its packages installed, and a Node.js to run them."""
    node()
    if not install.has_javascript():
        missing(
            "the packages of examples/javascript",
            install="PYTHONPATH=examples python -m local_cloud.install javascript",
        )
    return install.JAVASCRIPT


def framework(name: str) -> Path:
    """Path of a Serverless Framework, and a Node.js to run it."""
    node()
    found = install.framework_script(name)
    if found is None:
        missing(
            install.FRAMEWORKS[name][0], install=f"PYTHONPATH=examples python -m local_cloud.install {name}"
        )
    return found


def helm() -> Path:
    """Path of Helm: of the system, or the one that was installed here."""
    found = shutil.which("helm")
    path = Path(found) if found else install.helm_binary()
    if path is None:
        missing("Helm", install="PYTHONPATH=examples python -m local_cloud.install helm")
    return path


def _pythons(version: str) -> list[Path]:
    on_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [
        *([Path(on_path)] if on_path else []),
        *sorted(pyenv.glob(f"{version}*/bin/python{version}"), reverse=True),
    ]
