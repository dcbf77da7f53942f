"""Every command and example of docs/audit.md, run in the order of the page."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloister._cli.root import build
from cloister.errors import DeniedError
from cloister_host.testing import embedded_host

GUIDE = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines() if line
]
FORECAST = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("forecast", output=boolean())
def forecast(history: Annotated[str, sealed("histories")]) -> bool:
    return len(history) > 3
"""


@pytest.fixture
def tenant(tmp_path):
    with embedded_host(tmp_path / "host") as host:
        tenant = host.tenant()
        tenant.admin.call("key.create", {"key": "histories", "purpose": "seal"})
        (tmp_path / "function").mkdir()
        (tmp_path / "function" / "function.py").write_text(FORECAST)
        tenant.deploy(tmp_path / "function")
        for action, resource in (("seal", "key/histories"), ("invoke", "function/forecast")):
            tenant.admin.call("grant.create", {"principal": "admin", "action": action, "resource": resource})
        (tmp_path / "policy.toml").write_text(host.policy.read_text())
        yield tenant
        tenant.admin.close()


def test_the_commands_of_the_guide_do_what_it_says(tenant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = tenant.environment("admin")
    sealed = str(tenant.admin.seal("a history", key="histories"))
    entry = tenant.admin.call("audit.list", {"limit": 1})["entries"][0]["id"]
    time.sleep(1.5)  # the entry has its place well within this on a quiet machine; `run` waits if not
    assert len(COMMANDS) > 12
    for line in COMMANDS:
        if line.startswith("export "):
            name, value = line.removeprefix("export ").split("=")
            environment[name] = value
            continue
        command, _, target = line.partition(" > ")
        arguments = shlex.split(command.replace("ENTRY_ID", entry).replace("...", sealed))
        assert arguments[0] == "cloister"
        output = run(arguments[1:], environment)
        if target:
            Path(target).write_text(output)
    assert json.loads(Path("bundle.json").read_text())["disclosures"] == []
    assert len(json.loads(Path("disclosed.json").read_text())["disclosures"]) == 1
    assert "heads.json" in [path.name for path in tmp_path.iterdir()]


def run(arguments, environment):
    for _ in range(50):
        done = CliRunner().invoke(build({}, {}), arguments, env=environment)
        if done.exit_code == 0:
            return done.stdout
        assert "no place in the log yet" in str(done.exception), (
            f"{arguments} {done.output} {done.exception!r}"
        )
        time.sleep(0.1)
    raise AssertionError("the entry was never placed")


def test_the_example_of_the_guide_runs(tenant):
    [example] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    sealed = tenant.admin.seal("a history", key="histories")
    with tenant.client("app", [("invoke", "function/forecast")]) as client:
        exec(example, {"client": client, "sealed": sealed, "DeniedError": DeniedError})
