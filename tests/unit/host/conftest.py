"""The host's services, over SQLite and, where `CLOISTER_TEST_DATABASES` names it too, PostgreSQL.

`make test` runs every test over both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.host_world import HostWorld
from support.postgres import Cluster, cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture(params=os.environ.get("CLOISTER_TEST_DATABASES", "sqlite").split(","))
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'host.db'}"
    made: Cluster = request.getfixturevalue("postgresql")
    return made.database()


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> Iterator[HostWorld]:
    world = HostWorld(tmp_path, url=database_url)
    yield world
    world.close()
