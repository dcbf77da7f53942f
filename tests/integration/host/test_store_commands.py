"""The store from the command line: an anchor that refuses an old copy, a database by its URL."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloister_host.embedded import embedded_host
from cloister_host.store.anchors import RolledBackError
from support.postgres import cluster


def cloister_host(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloister_host", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def anchored(tmp_path: Path) -> Path:
    """A folder with an initialised host whose anchor is in another one."""
    (tmp_path / "elsewhere").mkdir()
    done = cloister_host(
        "init", "--attester", "simulated", "--anchor", tmp_path / "elsewhere" / "anchor", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


def policy(folder: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """Starts the host as far as its configuration, and stops."""
    return cloister_host("policy", "--attester", "simulated", *more, cwd=folder)


def test_an_old_copy_of_the_whole_database_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    anchor = tmp_path / "elsewhere" / "anchor"
    with embedded_host(tmp_path, anchor=anchor) as host:
        tenant = host.tenant("acme")
        app = tenant.principal("app", [("key.read", "key/*")])
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    with embedded_host(tmp_path, anchor=anchor) as host:
        admin = host.client("acme", tmp_path / "acme-admin.key")
        admin.call("grant.delete", {"principal": "app", "action": "key.read", "resource": "key/*"})
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "backup").rename(tmp_path / "state")
    with pytest.raises(RolledBackError), embedded_host(tmp_path, anchor=anchor):
        pass
    # Without the anchor the grant is back: what `anchor: none` in the configuration warns of.
    with embedded_host(tmp_path) as host:
        host.client("acme", app).call("key.list", {})


def test_an_anchor_that_is_gone_is_begun_anew_only_by_name(anchored: Path) -> None:
    anchor = ("--anchor", anchored / "elsewhere" / "anchor")
    assert policy(anchored, *anchor).returncode == 0
    assert 'anchor" = "file"' in (anchored / "policy.toml").read_text()
    (anchored / "elsewhere" / "anchor").unlink()
    refused = policy(anchored, *anchor)
    assert refused.returncode != 0
    assert "--accept-this-store" in refused.stderr
    assert cloister_host("anchor", "--attester", "simulated", *anchor, cwd=anchored).returncode != 0
    accept = ("anchor", "--attester", "simulated", "--accept-this-store")
    assert cloister_host(*accept, *anchor, cwd=anchored).returncode == 0
    assert policy(anchored, *anchor).returncode == 0


def test_a_host_is_made_in_postgresql(tmp_path: Path) -> None:
    with cluster() as made:
        url = made.database()
        (tmp_path / "password").write_text("ignored-by-trust\n")
        options = ("--database", url, "--database-password-file", tmp_path / "password")
        done = cloister_host("init", "--attester", "simulated", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert policy(tmp_path, *options).returncode == 0
        assert '"store" = "postgresql"' in (tmp_path / "policy.toml").read_text()
        assert not (tmp_path / ".cloister" / "cloister.db").exists()


def test_a_password_in_the_arguments_is_refused_and_not_repeated(tmp_path: Path) -> None:
    done = cloister_host("init", "--database", "postgresql://cloister:hunter2@db/cloister", cwd=tmp_path)
    assert done.returncode != 0
    assert "--database-password-file" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
