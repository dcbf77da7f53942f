"""The page about the proxy runs as it is written, with the real curl and the real Node.js."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from cloister.proxy.operations import OPERATIONS
from cloister_host.embedded import embedded_host
from support import require
from support.documents import DOCS, run_blocks

PAGE = DOCS / "proxy.md"
PORT = "127.0.0.1:8788"


@pytest.fixture
def tenant(tmp_path):
    with embedded_host(tmp_path) as host:
        tenant = host.tenant()
        admin = tenant.admin
        admin.call("key.create", {"key": "cards", "purpose": "seal"})
        admin.call("policy.create", {"policy": "customer", "plan": "vault"})
        grants = [("seal", "key/cards"), ("decrypt", "key/cards"), ("encrypt", "key/cards")]
        grants += [("invoke", "function/is-card"), ("tokenize", "policy/customer"), ("key.read", "key/*")]
        tenant.principal("app", grants)
        yield tenant
        admin.close()


def test_the_page_runs_as_written(tenant, tmp_path):
    require.node()
    require.binary("curl")
    folder = tmp_path / "work"
    folder.mkdir()
    _run_function_new(folder)
    tenant.deploy(folder / "is_card")
    text = PAGE.read_text(encoding="utf-8")
    command = re.search(r"^\$ (cloister proxy.*)$", text, re.MULTILINE)[1]
    environment = {**os.environ, **tenant.environment("app")}
    proxy = subprocess.Popen(
        [sys.executable, "-m", *command.split(), "--listen", "127.0.0.1:0", "--quiet"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = proxy.stdout.readline().split("http://")[1].strip()
        assert "its token is in .cloister/proxy.token" in proxy.stdout.readline()
        copy = tmp_path / "page.md"
        copy.write_text(text.replace(PORT, address), encoding="utf-8")
        sealed, invoked, several, script = run_blocks(copy, folder, {})
    finally:
        proxy.terminate()
        proxy.communicate()
    assert json.loads(sealed)["sealed"].startswith("ey")
    assert json.loads(invoked)["value"] is True
    assert '"tokens"' in several
    assert '"ssn": "***-**-1120"' in several
    assert script.splitlines() == ["4111 1111 1111 1111", "open false"]


def test_the_page_lists_every_operation():
    text = PAGE.read_text(encoding="utf-8")
    for operation in OPERATIONS:
        assert re.search(rf"`{operation}[/`]", text), operation


def _run_function_new(folder):
    command = [sys.executable, "-m", "cloister", "function", "new", "is-card"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
