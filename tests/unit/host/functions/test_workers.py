"""Workers that break the rules, and the pool that keeps them."""

from __future__ import annotations

import ast
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.errors import CloisterError, ConfigurationError, FunctionError, UnavailableError
from cloister.function.bundle import Bundle, build_bundle
from cloister.function.manifest import Manifest
from cloister_host.functions.frames import Answer, Ask
from cloister_host.functions.sandbox import Job, Sandbox
from cloister_host.functions.sandbox.namespaces import NamespaceSandbox
from cloister_host.functions.sandbox.process import ProcessSandbox
from cloister_host.functions.workers import Pool, WorkerKey
from support import require

HEAD = """
import os, socket, struct, sys
import msgspec
from cloister.function import Limits, Origin, function, origin, text
from cloister_host.functions.frames import Channel

WHO = os.urandom(8).hex()

def raw(payload):
    '''Send bytes on the host's socket, past everything in between.'''
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("channel"), Channel):
        frame = frame.f_back
    frame.f_locals["channel"]._connection.sendall(payload)

def descriptors():
    found = 0
    for number in range(1 << 12):
        try:
            os.fstat(number)
            found += 1
        except OSError:
            pass
    return found

def frame(value):
    encoded = msgspec.msgpack.encode(value)
    return struct.pack(">I", len(encoded)) + encoded

@function("f", output=text(max_chars=999), egress={"partner": origin("https://partner.example")},
          limits=Limits(timeout_seconds=5))
def f(value: str, *, partner: Origin) -> str:
"""


class NoDoor:
    """Answers every ask, and counts them."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []

    def ask(self, request: Ask, *, deadline: float) -> Answer:
        self.asks.append(request)
        return Answer(200, {}, b"{}")


Run = Callable[..., object]

pids: list[int] = []  # of the workers that `run` used, in order


@pytest.fixture(params=[ProcessSandbox, NamespaceSandbox], ids=["process", "namespaces"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    try:
        started: Sandbox = request.param()
    except ConfigurationError as error:
        require.missing("the namespaces sandbox", install=str(error))
    return started


@pytest.fixture
def run(sandbox: Sandbox, tmp_path: Path) -> Iterator[Run]:
    pool = Pool(sandbox, max_workers=2, max_busy_per_tenant=2)
    bundles: dict[str, Bundle] = {}
    pids.clear()

    def invoke(
        body: str,
        *,
        tenant: str = "acme",
        door: NoDoor | None = None,
        inside: threading.Barrier | None = None,
    ) -> object:
        if body not in bundles:
            folder = tmp_path / str(len(bundles))
            folder.mkdir()
            (folder / "function.py").write_text(HEAD + f"    {body}\n")
            bundles[body] = build_bundle(folder)
        bundle = bundles[body]

        def load() -> tuple[Job, Manifest]:
            return Job.of(tenant, bundle), bundle.manifest

        with pool.worker(WorkerKey(tenant, bundle.digest, "p"), load) as worker:
            if inside is not None:
                inside.wait(timeout=20)
            pids.append(worker._process.pid)
            return worker.call({"value": "v"}, door or NoDoor())

    yield invoke
    pool.close()


@pytest.mark.parametrize(
    "body",
    [
        "raw(b'\\xff' * 100)",
        "raw(struct.pack('>I', 1 << 31))",
        "raw(frame(['loaded', b'{}']))",
        "raw(frame(['answer', 200, {}, b'']))",
        "raw(b'\\x00' * 4); return 'after'",
        "os._exit(0)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_a_worker_that_breaks_the_protocol_is_ended_and_replaced(run: Run, body: str) -> None:
    with pytest.raises(FunctionError, match=r"process (ended|does not keep to the protocol)"):
        run(body)
    assert run("return value") == "v"


def test_a_worker_that_asks_without_end_is_ended(run: Run) -> None:
    door = NoDoor()
    with pytest.raises(FunctionError):
        run("while True:\n        partner.get('/')", door=door)
    assert len(door.asks) <= 256


def test_a_worker_keeps_its_process_between_calls_of_one_principal(run: Run) -> None:
    assert run("return WHO") == run("return WHO")


def test_tenants_do_not_share_a_process(run: Run) -> None:
    assert run("return WHO", tenant="acme") != run("return WHO", tenant="rival")


def test_a_worker_has_no_environment_descriptors_or_arguments_of_the_host(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_ROOT", "4711")
    with Path(os.devnull).open("rb"):
        found = run("import sys; return repr((dict(os.environ), sys.argv[1:], descriptors()))")
    environment, arguments, descriptors = ast.literal_eval(str(found))
    assert set(environment) <= {"LC_CTYPE", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    assert arguments == []
    # Standard streams and the socket.
    assert descriptors == 4


def test_a_worker_runs_nothing_between_two_calls(run: Run) -> None:
    run("return value")
    # The kernel stops it when it next looks; that needs no luck, only a moment.
    for _ in range(500):
        if "State:\tT" in Path(f"/proc/{pids[0]}/status").read_text():
            return
        time.sleep(0.01)
    pytest.fail("the worker was not stopped")


def test_the_least_recently_used_worker_leaves_when_the_pool_is_full(run: Run) -> None:
    for tenant in ("a", "b", "c"):
        run("return value", tenant=tenant)
    # Killing is asynchronous: the kernel needs a moment to take it away.
    for _ in range(500):
        if not Path(f"/proc/{pids[0]}").exists():
            break
        time.sleep(0.01)
    assert [Path(f"/proc/{pid}").exists() for pid in pids] == [False, True, True]


def test_two_calls_of_one_principal_run_beside_each_other(run: Run) -> None:
    run("return WHO")
    both = threading.Barrier(2)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(run("return WHO", inside=both))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 2


def test_a_tenant_that_queues_without_end_is_refused_at_once(tmp_path: Path) -> None:
    pool = Pool(ProcessSandbox(), max_busy_per_tenant=0, max_waiting_per_tenant=0)
    key = WorkerKey("acme", "d", "p")

    def load() -> tuple[Job, Manifest]:
        raise AssertionError("nothing is to be loaded")

    with pytest.raises(UnavailableError, match="waiting"), pool.worker(key, load):
        pass
    pool.close()


def test_folders_and_processes_are_gone_after_close(tmp_path: Path) -> None:
    sandbox = ProcessSandbox()
    process = sandbox.start(Job(owner=("t", "d"), files={"a.py": b""}, memory_mib=16))
    root = sandbox._root
    assert list(root.iterdir())
    process.kill()
    assert not list(root.iterdir())
    sandbox.close()
    assert not root.exists()


def test_unknown_errors_of_an_origin_reach_the_function_as_ours(run: Run) -> None:
    class Closed(NoDoor):
        def ask(self, request: Ask, *, deadline: float) -> Answer:
            raise CloisterError("not today")

    caught = "try:\n        partner.get('/')\n    except Exception as error:\n        return str(error)"
    assert run(caught, door=Closed()) == "not today"


def test_a_request_for_an_origin_arrives_as_it_was_made(run: Run) -> None:
    door = NoDoor()
    body = "return str(partner.post('/a', json={'b': 1}, params={'c': 'd'}, headers={'x-e': 'f'}).status)"
    assert run(body, door=door) == "200"
    assert door.asks == [
        Ask(
            "partner",
            "POST",
            "/a",
            {"c": "d"},
            {"content-type": "application/json", "x-e": "f"},
            b'{"b": 1}',
        )
    ]
