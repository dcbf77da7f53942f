"""Two at once, on two hosts: each act is whole, one after the other, or refused to be done again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cloister_host.services import build_services
from cloister_host.store import ConflictError, Store
from support.host_world import HostWorld

ATTEMPTS = 50


def on(host: HostWorld, store: Store) -> Callable[..., Any]:
    """Operations on another host over the same database, tried again on a conflict as the dispatcher does."""
    operations = build_services(store, host.root, host.clock).operations()

    def call(op: str, **payload: Any) -> Any:
        operation = operations[op]
        request = operation.parse(json.dumps(payload).encode())
        for _ in range(ATTEMPTS):
            try:
                with store.begin() as tx:
                    return operation.handler(host.admin, request, tx)
            except ConflictError:
                continue
        raise AssertionError("it was never done")

    return call


def together(*acts: Callable[[], Any]) -> list[Any]:
    """What each gave, begun at the same time."""
    ready, results = threading.Barrier(len(acts)), [None] * len(acts)

    def run(index: int, act: Callable[[], Any]) -> None:
        ready.wait()
        results[index] = act()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("round_", range(3))
def test_two_rotations_at_once_give_two_versions(host: HostWorld, round_: int) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    first, second = on(host, host.store), on(host, host.second_store())
    made = together(lambda: first("key.rotate", key="ssn"), lambda: second("key.rotate", key="ssn"))
    assert sorted(item.kid for item in made) == ["ssn.2", "ssn.3"]
    shown = on(host, host.second_store())("key.show", key="ssn").key
    assert [version.state for version in shown.versions].count("active") == 1
    assert len(shown.versions) == 3
    host.second_store().verify()
    assert len(host.audited("key.rotate")) == 2


def test_a_rotation_and_a_change_of_state_at_once_are_both_done(host: HostWorld) -> None:
    host.call(host.admin, "key.create", key="ssn", purpose="seal")
    host.call(host.admin, "key.rotate", key="ssn")
    first, second = on(host, host.store), on(host, host.second_store())
    together(
        lambda: first("key.rotate", key="ssn"),
        lambda: second("key.state", kid="ssn.1", state="compromised"),
    )
    shown = on(host, host.second_store())("key.show", key="ssn").key
    states = {version.kid: version.state for version in shown.versions}
    assert states["ssn.1"] == "compromised"
    assert states["ssn.3"] == "active"
    host.second_store().verify()
