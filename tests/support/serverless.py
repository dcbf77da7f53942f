"""A service in a folder of its own, and the framework run on it as a person would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["PLUGIN", "Service"]

PLUGIN = Path(__file__).parents[2] / "adapters" / "serverless-cloister"
OFFLINE = ("unshare", "-rn")
DEPLOYMENT = "D" * 43
POLICY = f"""version = 1
environment = "simulated"
deployment = "{DEPLOYMENT}"

[[tee.simulated.reference]]
name = "x"
measurement = "{"00" * 48}"
"""
APP = """from cloister_aws import confidential

@confidential("salary-band@prod")
def ask(event, context, *, enclave):
    return enclave(salary=event["salary"], context={"person": event["person"]})

def plain(event, context):
    return event
"""
HEAD = """service: bands
frameworkVersion: '>=3 <5'
configValidationMode: error
provider:
  name: aws
  runtime: python3.11
  region: us-east-1
  deploymentMethod: direct
  deploymentBucket: deployments
"""


class Service:
    """A service that uses our plugin.

    Args:
        folder: Empty.
        script: The framework's command.
    """

    def __init__(self, folder: Path, script: Path) -> None:
        self.folder = folder
        self._script = script
        modules = folder / "node_modules"
        modules.mkdir()
        (modules / "serverless-cloister").symlink_to(PLUGIN)
        for found in script.parents[1].glob("serverless-*"):
            if not (modules / found.name).exists():
                (modules / found.name).symlink_to(found)
        (folder / "policy.toml").write_text(POLICY)
        (folder / "app.py").write_text(APP)

    def write(
        self,
        *,
        cloister: dict[str, Any] | None = None,
        functions: dict[str, Any] | None = None,
        plugins: list[str] | None = None,
        provider: str = "",
        custom: dict[str, Any] | None = None,
        package: dict[str, Any] | None = None,
    ) -> None:
        """Write serverless.yml; JSON is YAML."""
        settings = {"url": "https://cloister.example.com", "tenant": "acme", "policy": "policy.toml"}
        document = {
            "plugins": ["serverless-cloister", *(plugins or [])],
            "custom": {"cloister": {**settings, **(cloister or {})}, **(custom or {})},
            "package": package or {"patterns": ["!**", "app.py"]},
            "functions": functions
            or {
                "ask": {"handler": "app.ask", "cloister": {"invoke": ["salary-band@prod"]}},
                "plain": {"handler": "app.plain"},
            },
        }
        body = "".join(f"{name}: {json.dumps(value)}\n" for name, value in document.items())
        (self.folder / "serverless.yml").write_text(HEAD + provider + body)

    def run(
        self, *arguments: str, environment: dict[str, str] | None = None, offline: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the framework without credentials, and unless told otherwise, without a network."""
        no_network = OFFLINE if offline and can_be_offline() else ()
        return subprocess.run(
            [*no_network, str(self._script), *arguments],
            cwd=self.folder,
            env={
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.folder),
                "LANG": "C.UTF-8",
                "SLS_TELEMETRY_DISABLED": "1",
                "SLS_NOTIFICATIONS_MODE": "off",
                "SLS_INTERACTIVE_SETUP_ENABLE": "0",
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def package(self, **options: Any) -> dict[str, Any]:
        """Package the service; its CloudFormation template."""
        done = self.run("package", **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.template

    @property
    def template_path(self) -> Path:
        return self.folder / ".serverless" / "cloudformation-template-update-stack.json"

    @property
    def template(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.template_path.read_text())
        return found

    def packed(self, artifact: str = "bands.zip") -> set[str]:
        """Names in an artifact."""
        with zipfile.ZipFile(self.folder / ".serverless" / artifact) as archive:
            return set(archive.namelist())


def can_be_offline() -> bool:
    """Whether this machine lets us have a network namespace without a network."""
    if shutil.which(OFFLINE[0]) is None:
        return False
    return subprocess.run([*OFFLINE, "true"], capture_output=True, check=False).returncode == 0
