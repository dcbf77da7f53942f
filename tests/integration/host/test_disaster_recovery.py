"""The drill of docs/disaster-recovery.md: every command of the page, and two hosts at once."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from cloister.client import Client
from cloister.errors import CloisterError, LogError
from cloister_host.embedded import EmbeddedHost, embedded_host
from support.documents import DOCS, run_command

PAGE = (DOCS / "disaster-recovery.md").read_text(encoding="utf-8")
TAKE, VERIFY, RESTORE, LOOK = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def settings(url: str, folder: Path) -> dict[str, str]:
    return {
        "CLOISTER_URL": url,
        "CLOISTER_TENANT": "system",
        "CLOISTER_POLICY": str(folder / "policy.toml"),
        "CLOISTER_API_KEY_FILE": str(folder / "operator.key"),
        "CLOISTER_HEAD_FILE": str(folder / "heads.json"),
        "HOST": "--attester simulated",
    }


def test_the_drill(tmp_path: Path) -> None:
    (tmp_path / "anchor").mkdir()
    anchor = tmp_path / "anchor" / "cloister"
    with embedded_host(tmp_path, anchor=anchor) as old:
        tenant = old.tenant("acme")
        tenant.admin.call("key.create", {"key": "ssn", "purpose": "seal"})
        tenant.admin.call("grant.create", {"principal": "admin", "action": "unwrap", "resource": "key/ssn"})
        tenant.admin.call("grant.create", {"principal": "admin", "action": "seal", "resource": "key/ssn"})
        sealed = tenant.admin.seal("123-45-6789", key="ssn")
        old.host.services.log.sequence()
        environment = settings(old.url, tmp_path)
        run_command(TAKE, tmp_path, environment)
        assert run_command(VERIFY, tmp_path, environment).count("verified: backup") == 2
        described = run_command("cloister backup verify backups/*.clbackup --json", tmp_path, environment)
        environment["BACKUP_ID"] = json.loads(described)["backup"]
        # The machine that comes next has what the unseal provider needs, and nothing else.
        (tmp_path / "restored").mkdir(mode=0o700)
        shutil.copy(tmp_path / "state" / "unseal.key", tmp_path / "restored")
        printed = run_command(RESTORE, tmp_path, environment)
        assert "incarnation  1" in printed
        assert "restored before, complete" in run_command(RESTORE, tmp_path, environment)
        # The old host serves no more: the anchor is another's.
        with pytest.raises(CloisterError, match="restored elsewhere"):
            keep_asking(old)
    next_machine = tmp_path / "next"
    next_machine.mkdir()
    (tmp_path / "restored").rename(next_machine / "state")
    for name in ("operator.key", "acme-admin.key"):
        shutil.copy(tmp_path / name, next_machine)
    with embedded_host(next_machine, anchor=anchor) as new:
        assert new.host.keysets.keyset().config["incarnation"] == 1
        environment = {**settings(new.url, next_machine), "CLOISTER_HEAD_FILE": str(next_machine / "heads")}
        assert "acme" in run_command(LOOK, next_machine, environment)
        with new.client("acme", next_machine / "acme-admin.key") as admin:
            assert admin.open_column([sealed]) == ["123-45-6789"]


def keep_asking(host: EmbeddedHost) -> None:
    """Until it is refused, for at most a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        host.operator.call("tenant.list", {})
        time.sleep(0.2)


def test_who_saw_more_of_the_log_refuses_the_restored_host(tmp_path: Path) -> None:
    with embedded_host(tmp_path) as old:
        environment = settings(old.url, tmp_path)
        run_command(TAKE, tmp_path, environment)
        old.tenant("late")
        old.host.services.log.sequence()
        with Client.from_env(**_client(old.url, tmp_path)) as client:
            client.call("tenant.list", {})
    next_machine = tmp_path / "next"
    (next_machine / "state").mkdir(parents=True, mode=0o700)
    shutil.copy(tmp_path / "state" / "unseal.key", next_machine / "state")
    shutil.copy(tmp_path / "operator.key", next_machine)
    command = "cloister host restore backups/*.clbackup --key backup.key --state next/state $HOST"
    assert "there is no anchor" in run_command(command, tmp_path, environment)
    with embedded_host(next_machine) as new, Client.from_env(**_client(new.url, tmp_path)) as client:
        with pytest.raises(LogError):
            client.call("tenant.list", {})
        # Another client sees nothing odd: this is what `not_checked` says of a first head.
        new.operator.call("tenant.list", {})


def _client(url: str, folder: Path) -> dict[str, str]:
    return {
        "url": url,
        "tenant": "system",
        "policy": str(folder / "policy.toml"),
        "api_key_file": str(folder / "operator.key"),
        "head_file": str(folder / "heads.json"),
        "identity": "key",
    }
