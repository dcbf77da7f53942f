"""Several processes behind one address: one dies and nobody notices, all stop and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from cloister import Client
from cloister.errors import CloisterError
from support.postgres import cluster
from support.waiting import until

WORKERS = 2


class Served:
    """`cloister host serve --workers`, and who asks it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cloister_host", "serve", "--state", str(folder / "state")),
                    *("--attester", "simulated", "--accept-sandbox", "process"),
                    *("--listen", f"127.0.0.1:{self.port}", "--workers", str(WORKERS), *options),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(
            lambda: self.log.read_text().count("worker.ready") >= WORKERS or self.process.poll() is not None
        )

    def workers(self) -> list[int]:
        """The processes that were started by ours."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in children.split()]

    def ready(self) -> int:
        return self.log.read_text().count("worker.ready")

    def operator(self) -> Client:
        state = self.folder / "state"
        return Client.from_env(
            url=self.url,
            tenant="system",
            policy=str(state / "policy.toml"),
            api_key_file=str(state / "operator.key"),
            identity="key",
            timeout_seconds=60,
        )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            until(self.ended)

    def ended(self) -> bool:
        """Whether all is over; workers that still take requests are told that it is enough."""
        for pid in self.workers() if self.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return self.process.poll() is not None


def init(folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "cloister_host", "init", "--state", str(folder / "state")]
    subprocess.run([*command, "--attester", "simulated", *options], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    served = Served(folder, *options)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    init(folder)
    return folder


class Load:
    """Clients that ask again and again, each over connections of its own."""

    def __init__(self, served: Served, clients: int = 3) -> None:
        self.answered = 0
        self.failures: list[CloisterError] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(served,)) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        goal = self.answered + count
        until(lambda: self.answered >= goal or self.failures)

    def _run(self, served: Served) -> None:
        while not self._stop.is_set():
            with served.operator() as operator:
                for _ in range(5):
                    try:
                        operator.call("tenant.list", {})
                    except CloisterError as error:
                        self.failures.append(error)
                        return
                    self.answered += 1


def test_a_worker_that_is_killed_is_replaced_and_no_request_fails(folder: Path) -> None:
    with serving(folder) as served, Load(served) as load:
        load.more(10)
        before = served.workers()
        assert len(before) == WORKERS
        os.kill(before[0], signal.SIGKILL)
        load.more(10)
        until(lambda: served.ready() == WORKERS + 1)
        load.more(10)
        # The one that was there before is gone too: what it knew, the new one was given.
        os.kill(before[1], signal.SIGKILL)
        until(lambda: served.ready() == WORKERS + 2)
        load.more(10)
        assert set(served.workers()).isdisjoint(before)
    assert load.failures == []


@pytest.mark.slow
def test_workers_are_replaced_one_by_one_on_sighup(folder: Path) -> None:
    with serving(folder) as served, Load(served) as load:
        load.more(5)
        before = served.workers()
        served.process.send_signal(signal.SIGHUP)
        until(lambda: served.ready() == 2 * WORKERS)
        until(lambda: set(served.workers()).isdisjoint(before))
        load.more(5)
    assert load.failures == []


@pytest.mark.slow
def test_they_stop_with_the_supervisor_however_it_goes(folder: Path) -> None:
    with serving(folder) as served:
        workers = served.workers()
        served.process.kill()
        served.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


def test_before_it_stops_it_says_so_and_takes_requests_a_little_longer(folder: Path) -> None:
    with serving(folder, "--drain-notice-seconds", "120") as served, served.operator() as operator:
        operator.call("tenant.list", {})
        served.process.send_signal(signal.SIGTERM)

        def refuses() -> bool:
            try:
                urllib.request.urlopen(f"{served.url}/readyz", timeout=30).close()
            except urllib.error.HTTPError as error:
                return error.code == 503
            return False

        until(refuses)
        operator.call("tenant.list", {})
        until(served.ended)
        assert served.process.returncode == 0


def test_workers_that_cannot_start_are_not_started_again_and_again(folder: Path) -> None:
    with serving(folder, "--unseal", "shamir") as served:
        assert served.process.wait(90) != 0


@pytest.mark.slow
def test_workers_share_a_postgresql_database(tmp_path: Path) -> None:
    with cluster() as postgresql:
        database = ("--database", postgresql.database())
        init(tmp_path, *database)
        with serving(tmp_path, *database) as served, Load(served) as load:
            load.more(5)
            os.kill(served.workers()[0], signal.SIGKILL)
            until(lambda: served.ready() == WORKERS + 1)
            load.more(10)
        assert load.failures == []


@pytest.mark.slow
def test_what_one_process_commits_the_other_knows_at_once(folder: Path) -> None:
    """Over SQLite: whichever of the two answers, what was made is there, and what was taken back is not."""
    with serving(folder) as served:
        clients = [served.operator() for _ in range(6)]
        try:
            for number, client in enumerate(clients):
                client.call("tenant.create", {"tenant": f"t{number}-{time.time_ns()}"})
            counts = {len(client.call("tenant.list", {})["tenants"]) for client in clients}
            assert len(counts) == 1
        finally:
            for client in clients:
                client.close()
