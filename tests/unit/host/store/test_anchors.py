"""A store that was rolled back while no host ran is refused, with an anchor at hand (PROTOCOL 7)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister_host.keymanager.root import RootKey
from cloister_host.store import Store, TamperedError
from cloister_host.store.anchors import FileAnchor, Guardian, RolledBackError
from support.host_world import HostWorld


@pytest.fixture
def anchor(tmp_path: Path) -> FileAnchor:
    (tmp_path / "elsewhere").mkdir()
    return FileAnchor(tmp_path / "elsewhere" / "anchor")


Started = Callable[[FileAnchor | None], Guardian]


@pytest.fixture
def guardian(host: HostWorld) -> Iterator[Started]:
    """Of a host that has just started: its memory is empty."""
    with ExitStack() as stack:

        def start(anchor: FileAnchor | None) -> Guardian:
            store = Store(host.url, host.root.row_keys())
            stack.callback(store.close)
            return Guardian(store, host.root.row_keys(), anchor)

        yield start


def anchored(host: HostWorld, anchor: FileAnchor) -> None:
    host.store.verify()
    Guardian(host.store, host.root.row_keys(), anchor).anchor_now()


def test_a_store_that_was_rolled_back_while_no_host_ran_is_refused(
    host: HostWorld, anchor: FileAnchor, guardian: Started
) -> None:
    host.principal("app", ("key.read", "key/*"))
    before = host.copy()
    host.call(host.admin, "grant.delete", principal="app", action="key.read", resource="key/*")
    anchored(host, anchor)
    guardian(anchor).check()
    host.put_back(before)
    with pytest.raises(RolledBackError):
        guardian(anchor).check()
    # Without one it would pass: that is what an anchor is for, and what `anchor: none` says.
    guardian(None).check()


def test_a_store_that_lost_a_whole_tenant_is_refused(
    host: HostWorld, anchor: FileAnchor, guardian: Started
) -> None:
    before = host.copy()
    host.call(host.operator, "tenant.create", tenant="late")
    anchored(host, anchor)
    host.put_back(before)
    with pytest.raises(RolledBackError):
        guardian(anchor).check()


def test_a_store_that_went_on_after_the_anchor_is_accepted(
    host: HostWorld, anchor: FileAnchor, guardian: Started
) -> None:
    anchored(host, anchor)
    host.principal("app")
    guardian(anchor).check()


def test_rows_changed_while_no_host_ran_are_found_at_the_start(
    host: HostWorld, anchor: FileAnchor, guardian: Started
) -> None:
    anchored(host, anchor)
    host.pen("DELETE FROM grants WHERE tenant = 'acme'")
    with pytest.raises(RolledBackError):
        guardian(anchor).check()
    started = guardian(None)
    started.check()
    with pytest.raises(TamperedError):
        started.require_intact()


def test_an_anchor_that_is_missing_is_not_an_anchor_that_agrees(
    host: HostWorld, anchor: FileAnchor, guardian: Started
) -> None:
    with pytest.raises(ConfigurationError):
        guardian(anchor).check()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff", b'{"deployment":"x","counters":{},"mac":""}']
)
def test_an_anchor_that_is_none_is_refused(
    anchor: FileAnchor, guardian: Started, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "elsewhere" / "anchor").write_bytes(content)
    with pytest.raises(RolledBackError):
        guardian(anchor).check()


def test_a_counter_lowered_in_the_anchor_is_noticed(
    host: HostWorld, anchor: FileAnchor, guardian: Started, tmp_path: Path
) -> None:
    anchored(host, anchor)
    path = tmp_path / "elsewhere" / "anchor"
    path.write_bytes(path.read_bytes().replace(b'"system":', b'"system":1'))
    with pytest.raises(RolledBackError):
        guardian(anchor).check()


def test_the_anchor_of_another_deployment_is_refused(
    host: HostWorld, anchor: FileAnchor, guardian: Started
) -> None:
    other = RootKey.generate("test").row_keys()
    host.store.verify()
    Guardian(host.store, other, anchor).anchor_now()
    with pytest.raises(RolledBackError):
        guardian(anchor).check()


def test_an_anchor_that_cannot_be_written_is_said(
    host: HostWorld, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UnavailableError):
        anchored(host, anchor)


def test_it_is_written_when_the_host_stops(host: HostWorld, anchor: FileAnchor, guardian: Started) -> None:
    kept = Guardian(host.store, host.root.row_keys(), anchor)
    anchored(host, anchor)
    kept.start()
    before = host.copy()
    host.principal("app")
    kept.close()
    host.put_back(before)
    with pytest.raises(CloisterError):
        guardian(anchor).check()
