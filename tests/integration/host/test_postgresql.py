"""Two hosts over one PostgreSQL: what one takes back, the other refuses at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloister.errors import DeniedError, UnavailableError
from cloister_host.embedded import EmbeddedHost, embedded_host
from support.postgres import Cluster, cluster


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def replicas(postgresql: Cluster, tmp_path: Path) -> Iterator[tuple[EmbeddedHost, EmbeddedHost]]:
    url = postgresql.database()
    with ExitStack() as stack:
        first = stack.enter_context(embedded_host(tmp_path, database=url))
        second = stack.enter_context(embedded_host(tmp_path, database=url))
        yield first, second


def test_a_grant_taken_back_at_one_replica_is_refused_by_the_other_at_once(
    replicas: tuple[EmbeddedHost, EmbeddedHost],
) -> None:
    first, second = replicas
    tenant = first.tenant()
    tenant.admin.call("key.create", {"key": "ages", "purpose": "seal"})
    app = tenant.principal("app", [("seal", "key/ages"), ("decrypt", "key/ages")])
    here, there = first.client(tenant.name, app), second.client(tenant.name, app)
    sealed = here.seal(22, key="ages")
    assert there.open(sealed) == 22
    tenant.admin.call("grant.delete", {"principal": "app", "action": "decrypt", "resource": "key/ages"})
    for client in (there, here):
        with pytest.raises(DeniedError):
            client.open(sealed)


def test_a_host_that_lost_its_database_answers_nothing_until_it_is_back(
    replicas: tuple[EmbeddedHost, EmbeddedHost], postgresql: Cluster
) -> None:
    first, _ = replicas
    tenant = first.tenant()
    tenant.admin.call("key.create", {"key": "ages", "purpose": "seal"})
    app = tenant.client("app", [("seal", "key/ages"), ("decrypt", "key/ages")])
    sealed = app.seal(22, key="ages")
    postgresql.stop()
    try:
        with pytest.raises(UnavailableError):
            app.open(sealed)
    finally:
        postgresql.start()
    assert app.open(sealed) == 22
