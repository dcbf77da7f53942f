"""The self-test at start-up: a layer that is not there is noticed from inside, and refused unless named."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.functions.sandbox import LAYERS, Job
from cloister_host.functions.sandbox.choose import choose_sandbox, missing_layers
from cloister_host.functions.sandbox.namespaces import OPTIONAL, NamespaceSandbox
from support import require

JOB = Job(owner=("t", "d"), files={"a.py": b""}, memory_mib=16)

Open = Callable[..., NamespaceSandbox]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens sandboxes that are closed with the test."""
    sandboxes: list[NamespaceSandbox] = []

    def start(accepted: Collection[str] = (), *, without: Collection[str] = ()) -> NamespaceSandbox:
        sandboxes.append(NamespaceSandbox(accepted, without=without))
        return sandboxes[-1]

    try:
        start().close()
    except ConfigurationError as error:
        require.missing("the namespaces sandbox", install=str(error))
    yield start
    for sandbox in sandboxes:
        sandbox.close()


def test_every_layer_is_proven_here(opened: Open) -> None:
    sandbox = opened()
    assert set(sandbox.layers) == set(LAYERS)
    assert missing_layers(sandbox) == []


@pytest.mark.parametrize("layer", sorted(OPTIONAL))
def test_a_layer_that_is_not_there_is_noticed_and_refused(opened: Open, layer: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"sandbox for functions: {layer} "):
        opened(without={layer})


@pytest.mark.parametrize("layer", sorted(OPTIONAL))
def test_a_layer_may_be_missing_if_it_was_named(opened: Open, layer: str) -> None:
    sandbox = opened({layer}, without={layer})
    assert missing_layers(sandbox) == [layer]
    sandbox.start(JOB).kill()


def test_naming_one_layer_does_not_accept_another(opened: Open) -> None:
    with pytest.raises(ConfigurationError, match="sandbox for functions: landlock "):
        opened({"seccomp"}, without={"seccomp", "landlock"})


def test_a_layer_that_may_be_missing_is_used_where_it_is_there(opened: Open) -> None:
    assert missing_layers(opened(OPTIONAL)) == []


@pytest.mark.parametrize("layer", ["user", "mnt", "pid", "pivot_root", "no_capabilities", "magic"])
def test_there_is_no_jail_without_this_layer(layer: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be done without"):
        choose_sandbox(accepted_missing={layer})


def test_a_zygote_that_died_is_replaced(opened: Open) -> None:
    sandbox = opened()
    guard = sandbox._zygote.pid
    (zygote,) = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    worker = sandbox.start(JOB)
    os.kill(int(zygote), signal.SIGKILL)
    # Its workers end with it: the kernel sees to that.
    assert worker.connection.recv(1) == b""
    worker.kill()
    assert any(_starts(sandbox) for _ in range(100))


def _starts(sandbox: NamespaceSandbox) -> bool:
    try:
        sandbox.start(JOB).kill()
    except UnavailableError:
        threading.Event().wait(0.05)
        return False
    return True


def test_many_workers_start_beside_each_other(opened: Open) -> None:
    sandbox = opened()
    started = []
    threads = [threading.Thread(target=lambda: started.append(sandbox.start(JOB))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({worker.pid for worker in started}) == 8
    for worker in started:
        worker.kill()
