"""The gate with real threads: who waits gives its place up, and everybody comes through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cloister.errors import LimitError
from cloister_host.fairness import Gate, Limits, Shares, aside

SECONDS = 60


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate(Shares(Limits(at_once=1, inside=64, inside_per_tenant=32, waiting_per_tenant=100)))
    yield gate
    gate.close()


def test_everybody_comes_through(gate: Gate) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        with aside():
            pass
        done.append(number)

    async def request(number: int) -> None:
        async with gate.entered("abc"[number % 3]) as place:

            def held() -> None:
                with place.held():
                    work(number)

            await asyncio.to_thread(held)

    async def requests() -> None:
        await asyncio.gather(*(request(number) for number in range(150)))

    asyncio.run(asyncio.wait_for(requests(), SECONDS))
    assert sorted(done) == list(range(150))


def test_who_waits_for_something_else_lets_another_work(gate: Gate) -> None:
    """Neither can end before the other was inside: without `aside` this would not end."""
    both = threading.Barrier(2)

    async def request(tenant: str) -> None:
        async with gate.entered(tenant) as place:

            def held() -> None:
                with place.held(), aside():
                    both.wait(SECONDS)

            await asyncio.to_thread(held)

    async def requests() -> None:
        await asyncio.gather(request("a"), request("a"))

    asyncio.run(asyncio.wait_for(requests(), SECONDS))


def test_a_request_that_holds_its_place_for_long_does_not_stop_others(gate: Gate) -> None:
    over = threading.Event()

    async def hold() -> None:
        async with gate.entered("a") as place:

            def held() -> None:
                with place.held():
                    over.wait(SECONDS)

            await asyncio.to_thread(held)

    async def pass_by() -> None:
        async with gate.entered("b"):
            over.set()

    async def requests() -> None:
        await asyncio.gather(hold(), pass_by())

    asyncio.run(asyncio.wait_for(requests(), SECONDS))
    assert over.is_set()


def test_who_goes_away_leaves_no_place_taken(gate: Gate) -> None:
    async def requests() -> None:
        async with gate.entered("a"):
            waiting = asyncio.create_task(_enter(gate, "a"))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await _enter(gate, "a")

    asyncio.run(asyncio.wait_for(requests(), SECONDS))


def test_an_error_gives_the_place_back(gate: Gate) -> None:
    async def fail() -> None:
        async with gate.entered("a") as place:
            with place.held():
                raise ZeroDivisionError

    async def requests() -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await fail()

    asyncio.run(asyncio.wait_for(requests(), SECONDS))


def test_a_line_that_is_full_refuses_and_empties_again() -> None:
    gate = Gate(Shares(Limits(at_once=1, inside=1, inside_per_tenant=1, waiting_per_tenant=0)))

    async def requests() -> None:
        with pytest.raises(LimitError):
            await _enter(gate, "a")

    asyncio.run(requests())
    gate.close()


def test_outside_of_any_request_nothing_is_given_up() -> None:
    with aside():
        pass


async def _enter(gate: Gate, tenant: str) -> None:
    async with gate.entered(tenant):
        pass
