"""Nobody is told of a commit before it is on the disk; one flush may serve many."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from cloister.errors import UnavailableError
from cloister_host.store import Table
from support.host_world import HostWorld


class Note(msgspec.Struct, frozen=True):
    text: str


NOTES = Table("policies", Note, "note")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite only: PostgreSQL flushes its own log."""
    return f"sqlite:///{tmp_path / 'host.db'}"


@pytest.fixture
def flushed(host: HostWorld, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are flushed, in order."""
    names: list[str] = []
    flush: Callable[[int], None] = os.fdatasync

    def noted(descriptor: int) -> None:
        flush(descriptor)
        names.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fdatasync", noted)
    return names


def write(host: HostWorld, row_id: str, *, deferred: bool = False) -> None:
    with host.store.begin() as tx:
        tx.insert(NOTES, "acme", row_id, Note("text"))
        if deferred:
            tx.defer_durability()


def test_a_commit_is_flushed_before_anybody_knows_of_it(host: HostWorld, flushed: list[str]) -> None:
    write(host, "a")
    assert flushed == [f"{host.path.resolve()}-wal"]


def test_a_deferred_commit_is_flushed_with_the_next_one(host: HostWorld, flushed: list[str]) -> None:
    write(host, "a", deferred=True)
    assert flushed == []
    write(host, "b")
    assert len(flushed) == 1


def test_an_answer_that_only_reads_waits_for_what_it_may_have_read(
    host: HostWorld, flushed: list[str]
) -> None:
    write(host, "a", deferred=True)
    with host.store.begin() as tx:
        assert tx.get(NOTES, "acme", "a") is not None
    assert len(flushed) == 1
    with host.store.begin() as tx:
        assert tx.get(NOTES, "acme", "a") is not None
    assert len(flushed) == 1


def test_commits_that_wait_together_share_a_flush(host: HostWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    count, started, go_on = [0], threading.Event(), threading.Event()
    flush = os.fdatasync

    def slow(descriptor: int) -> None:
        count[0] += 1
        started.set()
        go_on.wait(20)
        flush(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(write, host, "first")
        assert started.wait(20)
        others = [pool.submit(write, host, f"other-{number}") for number in range(8)]
        # They commit while the first one's flush is under way: the next flush serves all of them.
        while host.pen("SELECT COUNT(*) FROM policies") != [(9,)]:
            pass
        assert not any(other.done() for other in others)
        go_on.set()
        for done in (first, *others):
            done.result(20)
    assert count[0] == 2


def test_after_a_flush_that_failed_nothing_more_is_answered(
    host: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(UnavailableError) as caught:
        write(host, "a")
    assert not caught.value.retryable
    monkeypatch.undo()
    with pytest.raises(UnavailableError):
        write(host, "b")
