"""The pages on AWS and on the Serverless Framework as written, the quick start on the real runtime."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local_cloud.lambda_runtime import LambdaRuntime
from support import require
from support.serverless import DEPLOYMENT, Service

DOCS = Path(__file__).parents[2] / "docs"
AWS = (DOCS / "aws.md").read_text()
SERVERLESS = (DOCS / "serverless.md").read_text()
QUICK_START = AWS.split("## Quick start")[1].split("\n## ")[0]
FILE = re.compile(r"`([\w/]+\.py)`.*:\n\n```python\n((?:.|\n)*?)```")
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SETTINGS = re.compile(r"```ini\n(.*?)```", re.DOTALL)


def run(commands, folder):
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The quick start's folder, after its commands."""
    folder = tmp_path_factory.mktemp("quick")
    files = dict(FILE.findall(QUICK_START))
    assert set(files) == {"function/overdrawn.py", "app.py"}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    try:
        for commands in SHELL.findall(QUICK_START):
            run(commands, folder)
        yield folder
    finally:
        run("cloister host stop", folder)


def invoke(folder, customer):
    settings = dict(line.split("=", 1) for line in SETTINGS.search(QUICK_START)[1].split())
    sealed = (folder / "history.jwe").read_text().strip()
    with LambdaRuntime("app.handler", directory=folder, environment=settings) as function:
        return function.invoke({"customer": customer, "history": sealed}), function.logs


def test_the_quick_start_of_aws_ends_in_its_result_on_the_real_runtime(folder):
    result, _ = invoke(folder, "17")
    assert result.error is None, result.error
    assert result.payload["overdrawn"] is True
    assert set(result.payload) == {"overdrawn", "receipt"}


def test_under_another_customer_it_does_not_open_and_nothing_is_told(folder):
    result, logs = invoke(folder, "18")
    assert result.error.type == "OpenError"
    assert "-95" not in logs + result.error.message


def test_the_pieces_of_code_on_the_page_can_be_written_so():
    pieces = re.findall(r"```python\n(.*?)```", AWS.split("## Fields")[1], re.DOTALL)
    assert len(pieces) == 3
    for piece in pieces:
        compile(piece, "aws.md", "exec")
    from cloister.mask import MASKED, PLAIN
    from cloister_aws import mask_fields, seal_fields

    scope = {"MASKED": MASKED, "PLAIN": PLAIN, "mask_fields": mask_fields, "seal_fields": seal_fields}
    exec(pieces[0], scope)
    assert callable(scope["handler"])


def test_the_service_on_the_serverless_page_is_packaged_as_written(tmp_path):
    service = Service(tmp_path, require.framework("osls4"))
    text = re.search(r"```yaml\n(.*?)```", SERVERLESS, re.DOTALL)[1]
    (tmp_path / "serverless.yml").write_text(text)
    app = dict(FILE.findall(QUICK_START))["app.py"]
    (tmp_path / "app.py").write_text(app)
    template = service.package()
    assert template["Outputs"]["CloisterInvokes"]["Value"] == "overdrawn=overdrawn@prod"
    assert template["Outputs"]["CloisterDeployment"]["Value"] == DEPLOYMENT
    assert service.packed("overdrawn.zip") == {"app.py", "policy.toml"}


def test_the_serverless_page_lists_every_setting_of_the_plugin():
    program = (
        "const { custom, perFunction } = require('./lib/schema');"
        "console.log([...Object.keys(custom.properties), ...Object.keys(perFunction.properties)].join(' '))"
    )
    plugin = DOCS.parent / "adapters" / "serverless-cloister"
    done = subprocess.run(
        [require.node(18), "-e", program], cwd=plugin, capture_output=True, text=True, check=True
    )
    tables = SERVERLESS.split("## Settings")[1].split("## Commands")[0]
    missing = [name for name in done.stdout.split() if f"`{name}`" not in tables]
    assert not missing
