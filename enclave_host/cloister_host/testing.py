"""Pytest fixtures for users' own tests, over an embedded host.

def test_my_function(cloister_tenant):
cloister_tenant.deploy("functions/is_adult")
client = cloister_tenant.client("web", [("seal", "key/ages"), ("invoke", "function/is-adult")])
...
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloister_host.embedded import EmbeddedHost, Tenant, embedded_host

__all__ = ["EmbeddedHost", "Tenant", "cloister_host", "cloister_tenant", "embedded_host"]


@pytest.fixture(scope="session")
def cloister_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHost]:
    """One host for the whole test session."""
    with embedded_host(tmp_path_factory.mktemp("cloister")) as host:
        yield host


@pytest.fixture
def cloister_tenant(cloister_host: EmbeddedHost) -> Iterator[Tenant]:
    """A new tenant for each test."""
    tenant = cloister_host.tenant()
    yield tenant
    tenant.admin.close()
