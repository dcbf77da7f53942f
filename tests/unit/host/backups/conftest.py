"""Whole deployments: initialised with settings, backed up, and restored elsewhere."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister_host.app import initialize
from cloister_host.attester.settings import AttesterSettings
from cloister_host.backups.incarnate import Restored
from cloister_host.backups.restore import restore
from cloister_host.keymanager.root import RootKey
from cloister_host.services import Services, build_services
from cloister_host.settings import HostSettings
from cloister_host.store import Database, Store
from cloister_host.unseal.choose import open_unseal
from cloister_host.unseal.root import unseal_root
from support.backups import BACKUP_KEY, take_from
from support.host_world import Clock, HostWorld


class Deployment:
    """A deployment on one machine: settings, and what stands in its database."""

    def __init__(self, stack: ExitStack, settings: HostSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self._stack = stack

    def open(self) -> tuple[Store, RootKey, Services]:
        """As a host that has just started."""
        database = Database(self.settings.database_url)
        self._stack.callback(database.close)
        unseal = open_unseal(self.settings)
        root = unseal_root(database, unseal, "simulated", accept_file_unseal=False)
        store = Store(database, root.row_keys())
        return store, root, build_services(store, root, self.clock)

    def world(self) -> HostWorld:
        """The same, with the tests' ways to use it."""
        store, root, services = self.open()
        return HostWorld.over(self.settings.database_url, store, root, services, self.clock)

    def backup(self) -> bytes:
        return take_from(self.world())

    def restore(self, raw: bytes, **more: Any) -> Restored:
        return restore(self.settings, io.BytesIO(raw), key=BACKUP_KEY, clock=self.clock, **more)

    def rows(self, *tables: str) -> dict[str, list[str]]:
        world = self.world()
        return {table: sorted(map(repr, world.pen(f"SELECT * FROM {table}"))) for table in tables}


class Machines:
    """Makes machines; each has an empty database, and can be given what the unseal provider needs."""

    def __init__(self, stack: ExitStack, folder: Path, urls: Any) -> None:
        self._stack = stack
        self._folder = folder
        self._urls = urls
        self.clock = Clock()

    def new(self, name: str, *, like: Deployment | None = None, anchor: Path | None = None) -> Deployment:
        state = self._folder / name
        state.mkdir()
        if like is not None:
            shutil.copy(like.settings.unseal_key, state)
        settings = HostSettings(
            state=state, database=self._urls(name), anchor=anchor, attester=AttesterSettings(name="simulated")
        )
        return Deployment(self._stack, settings, self.clock)

    def deployment(self, *, anchor: Path | None = None) -> Deployment:
        """One with the tenant `acme`."""
        made = self.new("first", anchor=anchor)
        initialize(made.settings, clock=self.clock)
        world = made.world()
        world.call(world.operator, "tenant.create", tenant="acme")
        world.services.log.open()
        world.services.log.sequence()
        return made


@pytest.fixture
def machines(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[Machines]:
    """Where the first database is PostgreSQL, all are, but for those whose name begins with `sqlite`."""

    def url(name: str) -> str:
        if not database_url.startswith("postgresql") or name.startswith("sqlite"):
            return f"sqlite:///{tmp_path / name / 'host.db'}"
        made: str = request.getfixturevalue("postgresql").database()
        return made

    with ExitStack() as stack:
        yield Machines(stack, tmp_path, url)


__all__ = ["Deployment", "Machines", "replace"]
