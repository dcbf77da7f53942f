"""Install what pip does not: `python -m local_cloud.install azurite azure`.

    azurite   Microsoft's blob service for Node.js, into .make/node
    azure     Microsoft's Functions runtime, which needs Python 3.13, into .venv-azure

Both are pinned, stay inside the checkout and are left alone when they are already there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["azure_python", "azurite_script", "main"]

ROOT = Path(__file__).resolve().parents[2]
AZURITE = "azurite@3.35.0"
NODE_FOLDER = ROOT / ".make" / "node"
AZURE_FOLDER = ROOT / ".venv-azure"
AZURE_PACKAGES = ("azure-functions-runtime==1.3.0", "azure-functions>=1.21", "azure-storage-blob>=12.20")
RUNTIME_PYTHON = (3, 13)


def azurite_script() -> Path | None:
    """Azurite's blob service, if it is installed."""
    script = NODE_FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    return script if script.exists() else None


def azure_python() -> Path | None:
    """The Python with Microsoft's Functions runtime, if it is installed."""
    python = AZURE_FOLDER / "bin" / "python"
    marker = AZURE_FOLDER / "installed"
    return python if marker.exists() else None


def find_runtime_python() -> Path | None:
    """A Python new enough for the Functions runtime, from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = [shutil.which(f"python3.{minor}") for minor in (13, 14)]
    candidates = [Path(found) for found in on_path if found]
    candidates += sorted(pyenv.glob("3.1[34].*/bin/python"))
    for candidate in candidates:
        # A pyenv shim exists, and fails, for versions that are not selected.
        found = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        version = re.match(r"Python (\d+)\.(\d+)", found.stdout)
        if version and (int(version[1]), int(version[2])) >= RUNTIME_PYTHON:
            return candidate
    return None


def install_azurite() -> str:
    """Install Azurite; a line for the reader."""
    if azurite_script() is None:
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(["npm", "install", "--prefix", NODE_FOLDER, *options, AZURITE], check=True)  # noqa: S607 - npm is where the reader has it
    return f"{AZURITE}: {azurite_script()}"


def install_azure() -> str:
    """Install the Functions runtime and this product into an environment of their own."""
    if azure_python() is None:
        python = find_runtime_python()
        if python is None:
            return "azure: no Python 3.13 on PATH or in pyenv; functions will run without Microsoft's runtime"
        shutil.rmtree(AZURE_FOLDER, ignore_errors=True)
        subprocess.run([python, "-m", "venv", AZURE_FOLDER], check=True)
        own = AZURE_FOLDER / "bin" / "python"
        pip = [str(own), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *AZURE_PACKAGES, "--editable", str(ROOT)], check=True)
        (AZURE_FOLDER / "installed").touch()
    return f"{AZURE_PACKAGES[0]}: {azure_python()}"


def main(names: list[str]) -> int:
    """Install what is named; the exit code."""
    known = {"azurite": install_azurite, "azure": install_azure}
    if not names or not set(names) <= known.keys():
        print(__doc__, file=sys.stderr)
        return 2
    for name in names:
        print(known[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
