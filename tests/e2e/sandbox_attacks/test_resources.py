"""Bombs and loops: ended at their limit, while others are served."""

from __future__ import annotations

import threading

import pytest

from cloister.errors import CloisterError, FunctionError, LimitError

from .conftest import Prison

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(1000)",
        "threading.Event().wait()",
        "return 'x' if 9 ** 9 ** 9 else 'y'",
        "import re\nreturn str(re.match(r'(a+)+$', 'a' * 64 + 'b'))",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "for n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "try:\n    while True: pass\nfinally:\n    time.sleep(1000)",
        "class Sticky(str):\n    def __del__(self): time.sleep(1000)\nx = Sticky()\ndel x\nreturn ''",
    ],
)
def test_what_does_not_end_is_ended(prison: Prison, body: str) -> None:
    with pytest.raises(LimitError, match="took too long"):
        prison.run(body)


@pytest.mark.parametrize(
    "body",
    [
        "return str(len(bytearray(1 << 30)))",
        "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        "return 'x' * (1 << 33)",
        "import mmap\nkept = []\nwhile True: kept.append(mmap.mmap(-1, 1 << 24))",
        "return str(list(range(1 << 40)))",
    ],
)
def test_memory_ends_at_its_limit(prison: Prison, body: str) -> None:
    with pytest.raises((LimitError, FunctionError)):
        prison.run(body)


def test_deep_recursion_is_an_ordinary_failure(prison: Prison) -> None:
    with pytest.raises(FunctionError, match="RecursionError"):
        prison.run("def deeper(): return deeper()\nreturn deeper()")


def test_recursion_without_the_interpreters_limit_ends_the_worker_only(prison: Prison) -> None:
    with pytest.raises(CloisterError):
        prison.run("sys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(1 << 22): x = [x]\nreturn repr(x)")


def test_no_thread_is_started(prison: Prison) -> None:
    assert (
        prison.run("return attempt(threading.Thread(target=time.sleep, args=(9,)).start)") == "RuntimeError"
    )


def test_no_process_is_started(prison: Prison) -> None:
    assert prison.run("return attempt(os.fork)") == "EPERM"
    assert prison.run("return attempt(lambda: os.posix_spawn('/bin/sh', ['sh'], {}))") == "EPERM"
    spawn = "import subprocess\nreturn attempt(lambda: subprocess.run(['/bin/true']))"
    assert prison.run(spawn) in {"EPERM", "ENOENT"}


def test_descriptors_end_at_their_limit(prison: Prison) -> None:
    body = "kept = []\nwhile True: kept.append(os.pipe())"
    assert (
        prison.run(f"def bomb():\n    {body.replace(chr(10), chr(10) + '    ')}\nreturn attempt(bomb)")
        == "EMFILE"
    )


def test_a_result_beyond_the_frame_is_refused(prison: Prison) -> None:
    with pytest.raises(CloisterError):
        prison.run("return 'x' * (40 << 20)")


def test_a_finished_call_leaves_nothing_running(prison: Prison) -> None:
    """A worker that goes on after its answer is stopped, not merely ignored."""
    body = """
import cloister_host.functions.frames as frames
frames.Channel.receive = lambda *a, **k: [None for _ in iter(int, 1)]
return value
"""
    # The loop of the worker is replaced by one without end; its processor time must not grow.
    assert prison.run(body) == "v"
    _key, worker = [*prison.pool._idle.tenants["evil"].values()][-1]
    before = _ticks(worker._process.pid)
    threading.Event().wait(0.5)
    assert _ticks(worker._process.pid) - before <= 1
    with pytest.raises(CloisterError):
        prison.run(body)


def test_a_flood_of_one_tenant_leaves_room_for_another(prison: Prison) -> None:

    def spin() -> None:
        with pytest.raises(LimitError):
            prison.run("while True: pass")

    flood = [threading.Thread(target=spin) for _ in range(6)]
    for thread in flood:
        thread.start()
    try:
        assert all(prison.serves_others() for _ in range(20))
    finally:
        for thread in flood:
            thread.join()


def _ticks(pid: int) -> int:
    from pathlib import Path

    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
