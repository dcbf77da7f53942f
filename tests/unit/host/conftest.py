from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.host_world import HostWorld


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostWorld]:
    world = HostWorld(tmp_path)
    yield world
    world.close()
