"""The model behind docs/scaling.md: held against closed forms, and the page against the model."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from support import require
from support.documents import DOCS

FILE = Path(__file__).parents[3] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    require.module("simpy", install="pip install simpy")
    specification = importlib.util.spec_from_file_location("scaling", FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["scaling"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


def costs(scaling, **seconds):
    return scaling.Costs(**{"host": 0.01, "database": 0.0, "lock": 0.0} | seconds)


def test_one_server_is_the_textbooks(scaling):
    assert scaling.mean_in_mmc(rate=80, service=0.01, servers=1) == pytest.approx(1 / (100 - 80))


def test_two_servers_are_the_textbooks(scaling):
    # M/M/2: service / (1 - load ** 2)
    assert scaling.mean_in_mmc(rate=160, service=0.01, servers=2) == pytest.approx(0.01 / (1 - 0.8**2))


def test_no_queue_is_stable_beyond_its_capacity(scaling):
    with pytest.raises(ValueError, match="more arrives"):
        scaling.mean_in_mmc(rate=200, service=0.01, servers=2)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 0.7), (8, 0.8), (32, 0.9)])
def test_the_simulation_agrees_with_erlang_c(scaling, servers, load):
    rate = servers * load / 0.01
    found = scaling.simulate(
        costs(scaling), rate=rate, host_cores=servers, database_cores=1, tenants=1, operations=15_000, seed=7
    )
    assert found.mean == pytest.approx(scaling.mean_in_mmc(rate=rate, service=0.01, servers=servers), rel=0.1)
    assert found.host_load == pytest.approx(load, rel=0.05)


def test_queues_in_a_row_add_up(scaling):
    """Burke: what leaves an M/M/c queue is Poisson again, so each station waits as if it stood alone."""
    found = scaling.simulate(
        costs(scaling, database=0.004, lock=0.002),
        rate=150,
        host_cores=2,
        database_cores=1,
        tenants=1,
        operations=15_000,
        seed=7,
    )
    alone = [
        scaling.mean_in_mmc(rate=150, service=service, servers=servers)
        for service, servers in ((0.01, 2), (0.004, 1), (0.002, 1))
    ]
    assert found.mean == pytest.approx(sum(alone), rel=0.1)


def test_a_plan_keeps_every_station_below_its_limit(scaling):
    for rate in (1, 99, 12_345, 1_000_000):
        for work in (scaling.INVOCATION, scaling.ROW):
            needed = scaling.plan(rate, work)
            assert rate * work.host / needed.host_cores <= scaling.HOST_LOAD
            assert rate * work.database / needed.database_cores <= scaling.DATABASE_LOAD
            assert rate * work.lock / needed.tenants <= scaling.LOCK_LOAD
            assert needed.database_cores <= needed.cells * scaling.LARGEST_DATABASE_CORES


def test_the_first_limit_is_named_at_each_size(scaling):
    work = scaling.Costs(host=0.01, database=0.004, lock=0.002)
    names = [scaling.plan(rate, work).bottleneck for rate in (10, 100, 240, 2_000, 20_000)]
    assert names == [
        "nothing yet",
        "one Python process",
        "one Python process",
        "one tenant's state row",
        "one PostgreSQL",
    ]


def test_the_page_shows_what_the_model_gives(scaling):
    page = (DOCS / "scaling.md").read_text()
    for table in scaling.tables().split("\n\n"):
        assert table.strip() in page, table


def test_prices_say_where_they_are_from():
    prices = tomllib.loads(FILE.with_name("prices.toml").read_text())
    assert set(prices) == {"aws", "gcp", "azure"}
    for cloud in prices.values():
        assert 0 < cloud["host"] < cloud["database"] < 1
        assert cloud["source"].startswith("https://")
        assert cloud["region"]
