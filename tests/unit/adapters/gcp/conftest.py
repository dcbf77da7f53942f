"""What the tests of this folder share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """functions-framework writes the signature of its function into the environment of the process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
