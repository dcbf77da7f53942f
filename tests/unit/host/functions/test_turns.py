"""Who computes when: decided without a clock, so shown without one."""

from __future__ import annotations

import random
import threading

import pytest

from cloister_host.functions.turns import Schedule, Turn, Turns

SLICE = 0.01


class Process:
    """Remembers whether it runs."""

    def __init__(self) -> None:
        self.runs = False

    def pause(self) -> None:
        self.runs = False

    def resume(self) -> None:
        self.runs = True


class World:
    """A schedule with a clock of its own."""

    def __init__(self, cores: int) -> None:
        self.schedule = Schedule(cores=cores, slice_seconds=SLICE)
        self.cores = cores
        self.now = 0.0
        self.turns: list[Turn] = []
        self.had: dict[str, float] = {}

    def call(self, tenant: str) -> Turn:
        turn = Turn(tenant=tenant, process=Process())
        self.turns.append(turn)
        self.schedule.begin(turn)
        self.arrange()
        return turn

    def end(self, turn: Turn) -> None:
        self.schedule.end(turn, self.now)
        turn.process.pause()
        self.turns.remove(turn)
        self.arrange()

    def arrange(self) -> None:
        stopped, resumed = self.schedule.arrange(self.now)
        for turn in stopped:
            turn.process.pause()
        for turn in resumed:
            turn.process.resume()
        assert len(self.running()) == min(self.cores, len(self.turns)), "a core idles or is shared"

    def running(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.process.runs]  # type: ignore[attr-defined]

    def passes(self, seconds: float) -> None:
        """Let time pass, looking at the clock when the schedule says so."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            look = self.schedule.next_look()
            step = min(until - self.now, seconds if look is None else look)
            for turn in self.running():
                self.had[turn.tenant] = self.had.get(turn.tenant, 0.0) + step
            self.now += step
            self.arrange()


def runs(turn: Turn) -> bool:
    return bool(turn.process.runs)  # type: ignore[attr-defined]


def test_a_call_that_is_alone_runs_at_once_and_is_left_alone() -> None:
    world = World(cores=1)
    only = world.call("a")
    world.passes(10)
    assert runs(only)
    assert world.schedule.next_look() is None


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_a_short_call_does_not_wait_for_a_flood_of_endless_ones(cores: int) -> None:
    world = World(cores)
    for _ in range(20):
        world.call("flood")
    world.passes(1)
    for _ in range(50):
        short = world.call("other")
        assert runs(short), "it has to wait"
        world.passes(0.001)
        assert runs(short)
        world.end(short)
        world.passes(0.02)


def test_a_flood_of_short_calls_does_not_hold_every_core() -> None:
    world = World(cores=2)
    flood = [world.call("flood") for _ in range(10)]
    other = world.call("other")
    assert runs(other)
    assert sum(map(runs, flood)) == 1


def test_endless_calls_of_two_tenants_share_by_time_and_not_by_number() -> None:
    world = World(cores=1)
    for _ in range(19):
        world.call("many")
    world.call("one")
    world.passes(10)
    assert world.had["one"] == pytest.approx(5, abs=0.1)


def test_three_tenants_share_two_cores() -> None:
    world = World(cores=2)
    for tenant in "abc":
        for _ in range(3):
            world.call(tenant)
    world.passes(9)
    assert all(world.had[tenant] == pytest.approx(6, abs=0.2) for tenant in "abc")


def test_calls_of_one_tenant_share_among_themselves() -> None:
    world = World(cores=1)
    calls = [world.call("a") for _ in range(4)]
    world.passes(4)
    assert all(call.used == pytest.approx(1, abs=0.1) for call in calls)


def test_whoever_stayed_away_has_not_saved_up_more_than_a_slice() -> None:
    world = World(cores=1)
    world.call("a")
    world.passes(100)
    late = world.call("late")
    assert runs(late)
    world.passes(1)
    assert world.had["late"] == pytest.approx(0.5, abs=0.05)


def test_calls_in_a_row_are_not_each_a_new_beginning() -> None:
    """A tenant that cuts its work into short calls gets no more than one that does not."""
    world = World(cores=1)
    world.call("long")
    for _ in range(400):
        short = world.call("short")
        while short.used < SLICE:
            world.passes(SLICE / 2)
        world.end(short)
    assert world.had["short"] == pytest.approx(world.had["long"], rel=0.1)


def test_any_coming_and_going_ends_and_keeps_every_core_busy() -> None:
    dice = random.Random(4711)
    for cores in (1, 2, 3):
        world = World(cores)
        for _ in range(3000):
            if world.turns and dice.random() < 0.45:
                world.end(dice.choice(world.turns))
            else:
                world.call(dice.choice("abcd"))
            world.passes(dice.choice([0.0, 0.001, 0.02]))


def test_processes_are_stopped_and_resumed_as_decided() -> None:
    now = [0.0]
    turns = Turns(Schedule(cores=1, slice_seconds=SLICE), clock=lambda: now[0])
    loop, short = Process(), Process()
    with turns.taken("a", loop):
        assert loop.runs
        now[0] = 1.0
        with turns.taken("b", short) as turn:
            assert (loop.runs, short.runs) == (False, True)
            with turns.given_up(turn):
                assert (loop.runs, short.runs) == (True, False)
            assert (loop.runs, short.runs) == (False, True)
        assert (loop.runs, short.runs) == (True, False)
    assert not loop.runs
    turns.close()


def test_somebody_looks_at_the_clock_while_calls_wait() -> None:
    turns = Turns(Schedule(cores=1, slice_seconds=0.001))
    swapped = threading.Event()

    class Waiting(Process):
        def resume(self) -> None:
            super().resume()
            swapped.set()

    with turns.taken("a", Process()), turns.taken("a", Waiting()):
        assert swapped.wait(20)
    turns.close()
