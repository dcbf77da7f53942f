"""The log of a real host, seen by real clients while somebody has a pen in its database."""

from __future__ import annotations

import shutil
import sqlite3
import time
import urllib.error
import urllib.request

import pytest

from cloister import Client
from cloister.client import policy_from
from cloister.errors import IdentityError, LogError, UnavailableError
from cloister.identity import ApiKey
from cloister.transport.stdlib import HttpTransport
from cloister_host.testing import embedded_host


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "host"


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def sequenced(host):
    """Until the host has given every entry its place."""
    wait_for(lambda: not pen(host, "SELECT 1 FROM audit WHERE position IS NULL LIMIT 1"))


def pen(host, statement):
    connection = sqlite3.connect(host.directory / "state" / "cloister.db")
    with connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_every_reply_brings_a_head_that_continues_the_last_one(directory):
    with embedded_host(directory) as host:
        admin = host.tenant().admin
        for number in range(3):
            admin.call("key.create", {"key": f"k{number}", "purpose": "seal"})
            sequenced(host)
        not_checked = admin.attest().not_checked
        assert any("first reply" in line for line in not_checked)
        assert any("no witness" in line for line in not_checked)
        assert not any("older head" in line for line in not_checked)


def test_a_database_rolled_back_while_the_host_was_down_is_refused_by_who_saw_more(directory, tmp_path):
    heads = tmp_path / "heads.json"
    with embedded_host(directory) as host:
        tenant = host.tenant("acme")
    state, copy = directory / "state", tmp_path / "copy"
    shutil.copytree(state, copy)
    key = tenant.key_file("admin")
    with embedded_host(directory) as host, client(host, key, heads) as admin:
        for number in range(3):
            admin.call("key.create", {"key": f"k{number}", "purpose": "seal"})
        sequenced(host)
        admin.call("key.list", {})
    shutil.rmtree(state)
    shutil.copytree(copy, state)
    with embedded_host(directory) as host:
        with client(host, key, heads) as admin, pytest.raises(LogError, match="rolled back"):
            admin.call("key.list", {})
        # Who never saw more cannot know, and is told so.
        with client(host, key) as newcomer:
            newcomer.call("key.list", {})
            assert any("first reply" in line for line in newcomer.attest().not_checked)


def test_a_host_whose_log_was_tampered_with_says_so_and_acts_no_more(directory):
    with embedded_host(directory) as host:
        key = host.tenant("acme").key_file("admin")
        sequenced(host)
    pen(host, "DELETE FROM audit WHERE position = 0")
    with embedded_host(directory) as host, client(host, key) as admin:
        with pytest.raises(UnavailableError, match="changed outside the host"):
            admin.call("key.create", {"key": "k", "purpose": "seal"})
        assert "entries" in admin.call("audit.list", {"limit": 1})
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{host.url}/readyz", timeout=10)


def test_somebody_unknown_is_shown_no_head(directory):
    with embedded_host(directory) as host:
        tenant = host.tenant()
        with Client(
            tenant=tenant.name,
            policy=policy_from(host.policy),
            identity=ApiKey("clk_" + "A" * 43),
            transport=HttpTransport(host.url),
        ) as stranger:
            with pytest.raises(IdentityError):
                stranger.call("key.list", {})
            assert stranger._flows.heads.not_checked[1:] == ()


def client(host, key, heads=None):
    return Client.from_env(
        url=host.url,
        tenant="acme",
        policy=str(host.policy),
        api_key_file=str(key),
        identity="key",
        head_file=None if heads is None else str(heads),
    )
