"""What holds for every test."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast examples are made and checked is a matter of the machine: no test asserts wall-clock time.
settings.register_profile("cloister", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cloister")

# These run pages as written, and the pages' hosts listen on the default port: one at a time.
ON_THE_DEFAULT_PORT = frozenset({"test_readme.py", "test_first_function.py"})


@pytest.fixture(autouse=True)
def _default_port(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.name not in ON_THE_DEFAULT_PORT:
        yield
        return
    with (Path(tempfile.gettempdir()) / "cloister-tests-default-port.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
