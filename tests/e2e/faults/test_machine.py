"""The machine under a host misbehaves: its disk is full, its clock jumps."""

from __future__ import annotations

import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloister.errors import CloisterError, UnavailableError
from support.host_process import HostProcess, client
from support.waiting import until


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """No file may grow: what is answered was written, what was not written is refused, none is half done."""
    host = HostProcess(tmp_path)
    key = host.initialize()
    made: list[str] = []
    refused = 0
    with ExitStack() as stack:
        stack.callback(host.stop)
        host.start()
        operator = stack.enter_context(client(host.url, key))
        made += [operator.call("tenant.create", {"tenant": f"t{n}"})["tenant"] for n in range(3)]
        size = max(path.stat().st_size for path in (tmp_path / "state").iterdir() if path.is_file())
        resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for number in range(40):
            try:
                made.append(operator.call("tenant.create", {"tenant": f"full-{number}"})["tenant"])
            except UnavailableError:
                refused += 1
                break
        assert refused
        resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        host.stop()
        host.start()
        found = [item["tenant"] for item in operator.call("tenant.list", {})["tenants"]]
        assert sorted(set(found) - {"system"}) == sorted(made)
        made.append(operator.call("tenant.create", {"tenant": "after"})["tenant"])
        done = [
            e["resource"] for e in operator.call("audit.list", {})["entries"] if e["act"] == "tenant.create"
        ]
        assert sorted(done) == sorted(f"tenant/{name}" for name in made)
        assert host.is_ready()


@pytest.mark.parametrize(
    "seconds",
    [-7200, pytest.param(7200, marks=pytest.mark.slow), pytest.param(26 * 3600, marks=pytest.mark.slow)],
)
def test_a_clock_that_jumps_and_comes_back_breaks_nothing(tmp_path: Path, seconds: int) -> None:
    host = HostProcess(tmp_path)
    key = host.initialize()
    with ExitStack() as stack:
        stack.callback(host.stop)
        host.start()
        operator = stack.enter_context(client(host.url, key))
        operator.call("tenant.create", {"tenant": "before"})
        host.move_clock(seconds)
        # Requests come from another time than the host's, or its keyset does: refused, whatever is said.
        with client(host.url, key) as stranger, pytest.raises(CloisterError):
            stranger.call("tenant.create", {"tenant": "meanwhile"})
        until(host.is_ready)
        host.move_clock(0)

        def answers() -> bool:
            try:
                operator.call("tenant.create", {"tenant": "after"}, idempotency_key="after")
            except CloisterError:
                return False
            return True

        until(answers)
        found = [item["tenant"] for item in operator.call("tenant.list", {})["tenants"]]
        assert sorted(set(found) - {"system"}) == ["after", "before"]
        assert host.is_ready()
        # A restart finds the same log, and goes on from it.
        host.stop()
        host.start()
        operator.call("tenant.list", {})
