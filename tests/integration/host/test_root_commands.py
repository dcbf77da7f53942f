"""`cloister host root` as docs/unseal.md shows it: rotation, move and recovery, in the order of the page."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cloister.attestation.policy import AppraisalPolicy
from cloister.errors import ConfigurationError
from cloister_host._cli import app as host_command
from cloister_host.app import build, initialize
from cloister_host.attester.settings import AttesterSettings
from cloister_host.settings import DEVELOPMENT_SANDBOXES, HostSettings
from support import require, softhsm
from support.commands import run
from support.documents import DOCS

SECTIONS = ("## Rotating the root key", "## Moving to another provider", "## Losing a provider")


def commands() -> list[str]:
    page = (DOCS / "unseal.md").read_text(encoding="utf-8")
    lines = []
    for section in SECTIONS:
        [block] = re.findall(r"```sh\n(.*?)```", page.split(section)[1].split("\n## ")[0], re.DOTALL)
        lines += block.splitlines()
    return lines


def perform(command: list[str]) -> Result:
    """Run a command of `cloister host` in this process and folder."""
    return CliRunner().invoke(host_command, command)


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require.module("shamir_mnemonic", install="pip install shamir-mnemonic")
    module = softhsm.library()
    (tmp_path / "hsm").mkdir()
    configuration = softhsm.configure(tmp_path / "hsm")
    softhsm.add_token(configuration, "cloister")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hsm.pin").touch(0o600)
    (tmp_path / "hsm.pin").write_text(softhsm.PIN)
    printed = ""
    deployments = set()
    for line in commands():
        command = shlex.split(line.replace("/usr/lib/softhsm/libsofthsm2.so", str(module)))
        if command[3] == "recover":  # the page's HSM is lost here
            shutil.rmtree(tmp_path / "hsm" / "tokens")
        assert command[:2] == ["cloister", "host"]
        done = perform(command[2:])
        assert done.exit_code == 0, f"{line}: {done.exception}"
        printed = done.stdout
        with closing(sqlite3.connect(tmp_path / ".cloister" / "cloister.db")) as connection:
            deployments |= {name for [name] in connection.execute("SELECT deployment FROM roots")}
    assert printed.splitlines() == [
        "generation 1: destroyed, tenants 0, copies none, seen to be destroyed: file",
        "generation 2: destroyed, tenants 0, copies none, seen to be destroyed: file",
        "generation 3: retired, tenants 0, copies pkcs11, recovery",
        "generation 4: active, tenants 1, copies file, recovery",
    ]
    assert perform(["policy", "--attester", "simulated"]).exit_code == 0
    policy = AppraisalPolicy.from_toml((tmp_path / "policy.toml").read_text())
    assert deployments == {policy.deployment}


def test_a_host_that_serves_opens_the_generation_that_a_command_began(tmp_path: Path) -> None:
    settings = HostSettings(
        state=tmp_path / ".cloister",
        attester=AttesterSettings(name="simulated"),
        accepted_sandboxes=DEVELOPMENT_SANDBOXES,
    )
    initialize(settings)
    with build(settings) as host:
        store = host.services.store
        with store.begin() as tx:
            before = tx.derived_key("system", "anything")
        run(["cloister", "host", "root", "rotate", "--attester", "simulated"], tmp_path)
        store.forget_rows()
        with store.begin() as tx:
            assert tx.root_generation("system") == 2
            assert tx.derived_key("system", "anything") == before
            tx.create_tenant_kek("acme")
            assert tx.root_generation("acme") == 2


REFUSED = (
    ("destroy --generation 1", "in use"),
    ("destroy --generation 7", "unknown"),
    ("rotate --to paper", "no unseal provider 'paper'"),
    ("rotate --to file --to-option paper=1", "option paper is unknown"),
    ("recover --to file", "sealed by the provider file"),
    ("recovery --shares 2 --threshold 3", "make no sense"),
    ("rotate --unseal pkcs11", "needs a library and a token"),
)


def test_what_cannot_be_done_is_told_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require.module("shamir_mnemonic", install="pip install shamir-mnemonic")
    require.module("pkcs11", install="pip install python-pkcs11")
    monkeypatch.chdir(tmp_path)
    assert perform(["init", "--attester", "simulated"]).exit_code == 0
    for command, message in REFUSED:
        done = perform(["root", *shlex.split(command), "--attester", "simulated"])
        assert isinstance(done.exception, ConfigurationError), command
        assert message in str(done.exception)
    shown = perform(["root", "status", "--attester", "simulated"]).stdout
    assert shown == "generation 1: active, tenants 1, copies file\n"
