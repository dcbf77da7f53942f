"""Who is let in: one line a tenant, tenants in turn."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from cloister.errors import UnavailableError
from cloister_host.functions.admission import Admission


def admission(*, busy: int = 4, per_tenant: int = 2, waiting: int = 8) -> Admission:
    return Admission(max_busy=busy, max_busy_per_tenant=per_tenant, max_waiting_per_tenant=waiting)


class Line:
    """Calls that wait in threads; notes the order in which they are let in."""

    def __init__(self, door: Admission) -> None:
        self.door = door
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []

    def wait(self, tenant: str) -> None:
        before = sum(map(len, self.door._lines.values()))
        thread = threading.Thread(target=self._run, args=(tenant,))
        thread.start()
        self.threads.append(thread)
        while sum(map(len, self.door._lines.values())) == before:
            threading.Event().wait(0.001)

    def _run(self, tenant: str) -> None:
        with self.door.of(tenant):
            self.order.append(tenant)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(20)


def test_a_tenant_has_so_many_calls_at_a_time() -> None:
    door = admission(waiting=0)
    with door.of("a"), door.of("a"):
        with pytest.raises(UnavailableError, match="waiting"), door.of("a"):
            pass
        with door.of("b"):
            assert door.busy == 3
    with door.of("a"):
        assert door.busy == 1


def test_whoever_fills_the_house_cannot_close_the_door() -> None:
    door = admission(busy=2, per_tenant=2, waiting=0)
    with door.of("a"), door.of("a"), door.of("b"), door.of("c"):
        with pytest.raises(UnavailableError), door.of("b"):
            pass
        with door.of("d"):
            pass


def test_nobody_waits_for_another_tenants_line() -> None:
    door = admission(busy=1, per_tenant=1)
    line = Line(door)
    with door.of("a"):
        with door.of("b"):
            for tenant in "aaaab":
                line.wait(tenant)
        # The call of b goes, though those of a came first and wait on.
        line.threads[-1].join(20)
        assert line.order == ["b"]
    line.join()
    assert line.order == [*"baaaa"]


def test_a_place_that_gets_free_goes_to_each_tenant_in_turn() -> None:
    door = admission(busy=4, per_tenant=9)
    line = Line(door)
    with ExitStack() as held:
        for tenant in "aabb":
            held.enter_context(door.of(tenant))
        for tenant in "aaab":
            line.wait(tenant)
        assert [*door._lines] == ["a", "b"]
        held.pop_all().close()
    line.join()
    assert sorted(line.order) == sorted("aaab")
    assert door.busy == 0


def test_a_line_that_is_too_long_is_refused_at_once_and_leaves_nothing_behind() -> None:
    door = admission(per_tenant=1, waiting=1)
    line = Line(door)
    with door.of("a"):
        line.wait("a")
        with pytest.raises(UnavailableError, match="waiting"), door.of("a"):
            pass
    line.join()
    assert line.order == ["a"]
    assert door.busy == 0
    assert door._lines == {}


def test_whoever_waits_when_the_host_stops_is_refused() -> None:
    door = admission(per_tenant=1)
    refused: list[str] = []

    def wait() -> None:
        try:
            with door.of("a"):
                pass
        except UnavailableError as error:
            refused.append(error.code)

    with door.of("a"):
        thread = threading.Thread(target=wait)
        thread.start()
        while not door._lines:
            threading.Event().wait(0.001)
        door.close()
        thread.join(20)
    assert refused == ["unavailable"]
    with pytest.raises(UnavailableError), door.of("b"):
        pass
