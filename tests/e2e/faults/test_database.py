"""PostgreSQL goes away, whole or for one replica: what was answered is there; without it nothing is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from cloister import Client
from cloister.errors import ConfigurationError, DeniedError, UnavailableError
from support.cutting_proxy import cutting_proxy
from support.host_process import Anywhere, HostProcess, client
from support.postgres import Cluster, cluster
from support.waiting import until

BOUND_SECONDS = 2


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


class Load:
    """Clients that create tenants, each name once, and try again until they are told how it ended."""

    def __init__(self, key: str, *urls: str, clients: int = 2) -> None:
        self.made: list[str] = []
        self._key, self._urls = key, urls
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        goal = len(self.made) + count
        until(lambda: len(self.made) >= goal)

    def _run(self, number: int) -> None:
        with client(Anywhere(*self._urls), self._key) as operator:
            at = 0
            while not self._stop.is_set():
                name, at = f"t{number}-{at}", at + 1
                while True:
                    try:
                        operator.call("tenant.create", {"tenant": name}, idempotency_key=name)
                    except UnavailableError:
                        time.sleep(0.05)
                    else:
                        break
                self.made.append(name)


def tenants(operator: Client) -> list[str]:
    found, after = [], ""
    while True:
        page = operator.call("tenant.list", {"after": after, "limit": 1000})
        found += [item["tenant"] for item in page["tenants"]]
        if not page["next"]:
            return sorted(set(found) - {"system"})
        after = page["next"]


def entries(operator: Client, act: str) -> list[str]:
    """What was written down of an act, each time it was done."""
    found, after = [], ""
    while True:
        page = operator.call("audit.list", {"after": after, "limit": 1000})
        found += [e["resource"] for e in page["entries"] if e["act"] == act and e["outcome"] == "done"]
        if not page["next"]:
            return found
        after = page["next"]


def test_postgresql_dies_under_load_and_comes_back(postgresql: Cluster, tmp_path: Path) -> None:
    database = postgresql.database()
    hosts = [HostProcess(tmp_path, f"host-{n}", database=database) for n in range(2)]
    key = hosts[0].initialize()
    with ExitStack() as stack:
        for host in hosts:
            stack.callback(host.stop)
            host.start()
        with Load(key, *(host.url for host in hosts)) as load:
            load.more(5)
            postgresql.stop()
            assert not hosts[0].is_ready()
            postgresql.start()
            load.more(5)
        with client(hosts[1].url, key) as operator:
            # Exactly what was answered, each done once, each written down once.
            assert tenants(operator) == sorted(load.made)
            assert sorted(entries(operator, "tenant.create")) == sorted(f"tenant/{n}" for n in load.made)


def test_a_replica_that_is_cut_off_answers_nothing_and_the_others_serve(
    postgresql: Cluster, tmp_path: Path
) -> None:
    database = postgresql.database()
    with ExitStack() as stack:
        proxy = stack.enter_context(cutting_proxy(f"{postgresql.folder}/.s.PGSQL.5432"))
        near = HostProcess(tmp_path, "near", database=database, database_timeout_seconds=BOUND_SECONDS)
        through = database.replace(f"host={postgresql.folder}", f"host=127.0.0.1&port={proxy.port}")
        far = HostProcess(tmp_path, "far", database=through, database_timeout_seconds=BOUND_SECONDS)
        key = near.initialize()
        for host in (near, far):
            stack.callback(host.stop)
            host.start()
        operator = stack.enter_context(client(near.url, key))
        admin_key = operator.call("tenant.create", {"tenant": "acme"})["api_key"]
        admin = stack.enter_context(client(near.url, admin_key, tenant="acme"))
        auditor_key = admin.call("principal.create", {"principal": "auditor", "kind": "person"})["api_key"]
        grant = {"principal": "auditor", "action": "key.read", "resource": "key/*"}
        admin.call("grant.create", grant)
        auditor = stack.enter_context(client(far.url, auditor_key, tenant="acme"))
        auditor.call("key.list", {})
        proxy.cut()
        admin.call("grant.delete", grant)
        # Whatever it is asked: it does not know that the grant is gone, so it must not answer at all.
        hasty = stack.enter_context(client(far.url, auditor_key, tenant="acme", timeout_seconds=5))
        with pytest.raises(UnavailableError):
            hasty.call("key.list", {})
        assert not far.is_ready()
        assert near.is_ready()
        proxy.heal()
        until(far.is_ready)
        with pytest.raises(DeniedError):
            auditor.call("key.list", {})


def test_two_replicas_rotate_one_key_and_both_are_right(postgresql: Cluster, tmp_path: Path) -> None:
    database = postgresql.database()
    hosts = [HostProcess(tmp_path, f"host-{n}", database=database) for n in range(2)]
    key = hosts[0].initialize()
    rounds = 5
    with ExitStack() as stack:
        for host in hosts:
            stack.callback(host.stop)
            host.start()
        operator = stack.enter_context(client(hosts[0].url, key))
        admin_key = operator.call("tenant.create", {"tenant": "acme"})["api_key"]
        admins = [stack.enter_context(client(host.url, admin_key, tenant="acme")) for host in hosts]
        admins[0].call("key.create", {"key": "k", "purpose": "seal"})
        for action in ("seal", "decrypt"):
            admins[0].call("grant.create", {"principal": "admin", "action": action, "resource": "key/k"})
        made: list[str] = []
        sealed = []

        def rotate(admin: Client) -> None:
            for _ in range(rounds):
                try:
                    made.append(admin.call("key.rotate", {"key": "k"})["kid"])
                except (ConfigurationError, UnavailableError):
                    continue  # it was rotated meanwhile, and says so; nothing was done

        for _ in range(2):
            threads = [threading.Thread(target=rotate, args=(admin,)) for admin in admins]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sealed += [admin.seal(index, key="k") for index, admin in enumerate(admins)]
        usage = admins[1].call("key.show", {"key": "k"})["usage"]
        # As many versions as rotations that were answered, beside the first.
        assert len(made) == len(set(made)) == len(usage) - 1
        assert [admin.open(value) for admin in admins for value in sealed] == [0, 1, 0, 1] * 2
