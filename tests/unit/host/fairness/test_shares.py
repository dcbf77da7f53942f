"""Whose request is worked on next: decided without a clock, so shown without one."""

from __future__ import annotations

import random

import pytest

from cloister.errors import LimitError
from cloister_host.fairness.shares import SLICE_SECONDS, Limits, Shares, Ticket

LIMITS = Limits(at_once=1, inside=8, inside_per_tenant=4, waiting_per_tenant=50)


class World:
    """Shares with a clock of their own."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.shares = Shares(limits)
        self.now = 0.0
        self.working: list[Ticket] = []

    def arrive(self, tenant: str, count: int = 1) -> list[Ticket]:
        tickets = [Ticket(tenant=tenant) for _ in range(count)]
        for ticket in tickets:
            self.shares.arrive(ticket)
        self.admit()
        return tickets

    def admit(self) -> None:
        self.working += self.shares.admit(self.now)

    def work(self, seconds: float) -> Ticket:
        """The request that began last works for a while, and is answered."""
        ticket = self.working.pop()
        self.now += seconds
        self.shares.end(ticket, used=seconds)
        self.admit()
        return ticket


def test_one_works_while_others_of_the_same_tenant_wait() -> None:
    world = World()
    first, second = world.arrive("a", 2)
    assert world.working == [first]
    world.work(0.001)
    assert world.working == [second]


def test_a_tenant_with_little_passes_a_flood() -> None:
    world = World()
    world.arrive("flood", 40)
    world.work(0.005)
    [quiet] = world.arrive("quiet")
    # At once: beside what was begun before it came, and before what has not begun.
    assert quiet in world.working
    assert world.work(0.001) is quiet
    assert {ticket.tenant for ticket in world.working} == {"flood"}


def test_nobody_begins_beside_one_that_has_used_less() -> None:
    world = World()
    world.arrive("flood", 40)
    world.work(0.005)
    [quiet] = world.arrive("quiet")
    flood = next(ticket for ticket in world.working if ticket.tenant == "flood")
    world.working.remove(flood)
    world.shares.end(flood, used=0.001)
    world.admit()
    assert world.working == [quiet]


def test_time_is_shared_whatever_a_request_costs() -> None:
    world, had = World(), {"long": 0.0, "short": 0.0}
    costs = {"long": 0.008, "short": 0.001}
    world.arrive("long", 4)
    world.arrive("short", 4)
    for _ in range(4000):
        tenant = world.work(costs[world.working[-1].tenant]).tenant
        had[tenant] += costs[tenant]
        world.arrive(tenant)
    assert had["long"] == pytest.approx(had["short"], rel=0.05)


def test_a_tenant_that_was_away_has_saved_up_no_more_than_a_slice() -> None:
    world = World()
    world.arrive("away")
    world.work(0.0)
    world.arrive("busy", 40)
    for _ in range(30):
        world.work(0.01)
    world.arrive("away", 40)
    first = [world.work(0.005).tenant for _ in range(20)]
    assert first.count("busy") >= 5


def test_what_takes_longer_than_a_slice_stops_nobody() -> None:
    world = World()
    stuck, other = world.arrive("a", 2)
    assert world.working == [stuck]
    assert world.shares.next_look(world.now) == pytest.approx(SLICE_SECONDS)
    world.now += SLICE_SECONDS
    world.admit()
    assert world.working == [stuck, other]
    assert world.shares.next_look(world.now) is None


def test_who_waits_for_something_else_lets_others_work_and_comes_back() -> None:
    world = World()
    first, second = world.arrive("a", 2)
    world.shares.give_up(first, used=0.001)
    world.admit()
    assert world.working == [first, second]
    world.shares.take_back(first)
    world.admit()
    assert world.working == [first, second]
    world.work(0.001)
    assert world.working == [first, first]


def test_a_flood_that_waits_elsewhere_leaves_room_inside() -> None:
    world = World()
    for ticket in world.arrive("flood", 40):
        if ticket in world.working:
            world.shares.give_up(ticket, used=0.0)
            world.admit()
    assert len(world.working) == LIMITS.inside_per_tenant
    [quiet] = world.arrive("quiet")
    assert quiet in world.working


def test_the_one_too_many_is_refused_for_now_and_only_of_its_tenant() -> None:
    world = World()
    world.arrive("flood")
    world.arrive("flood", LIMITS.waiting_per_tenant)
    with pytest.raises(LimitError) as refused:
        world.arrive("flood")
    assert refused.value.retryable
    assert "retry after" in refused.value.hint
    world.arrive("quiet")
    world.shares.arrive(Ticket(tenant="flood"), patient=True)


def test_who_went_away_is_forgotten() -> None:
    world = World()
    begun, waiting = world.arrive("a", 2)
    assert world.shares.withdraw(waiting)
    assert not world.shares.withdraw(begun)
    assert not world.shares.withdraw(Ticket(tenant="b"))
    world.work(0.001)
    assert world.working == []


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_lost_or_let_in_twice_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    world = World(Limits(at_once=dice.choice((1, 3)), inside=8, inside_per_tenant=4, waiting_per_tenant=9))
    aside: list[Ticket] = []
    arrived = ended = 0
    for _ in range(2000):
        world.now += dice.random() / 100
        match dice.randrange(5):
            case 0 | 1:
                try:
                    world.arrive(dice.choice("abc"))
                    arrived += 1
                except LimitError:
                    pass
            case 2 if world.working:
                world.shares.end(
                    world.working.pop(dice.randrange(len(world.working))), used=dice.random() / 100
                )
                ended += 1
            case 3 if world.working:
                aside.append(world.working.pop(dice.randrange(len(world.working))))
                world.shares.give_up(aside[-1], used=0.001)
            case 4 if aside:
                world.shares.take_back(aside.pop(0))
        world.admit()
        assert len(world.working) == len(set(map(id, world.working)))
    for ticket in aside:
        world.shares.take_back(ticket)
    while ended < arrived:
        world.now += SLICE_SECONDS
        world.admit()
        assert world.working, "somebody waits for ever"
        world.shares.end(world.working.pop(), used=0.001)
        ended += 1
    world.admit()
    assert not world.working
