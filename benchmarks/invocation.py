"""Sealed calls to a host in a process of its own, beside a bare HTTP echo on the same server."""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister import Client
from figures import Row

CALLS = 400
BATCH = 10_000
FUNCTIONS = {
    "adult": """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-adult", output=boolean())
def is_adult(age: Annotated[int, sealed("ages")]) -> bool:
    return age >= 18
""",
    "adults": """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("are-adults", output=boolean(), batch=True)
def are_adults(age: Annotated[list[int], sealed("ages")]) -> list[bool]:
    return [value >= 18 for value in age]
""",
}
ECHO = """
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def echo(request):
    return Response(await request.body())

uvicorn.run(Starlette(routes=[Route("/", echo, methods=["POST"])]), port={port}, log_level="error")
"""


def p50_us(work: Callable[[], object], calls: int = CALLS) -> float:
    for _ in range(20):
        work()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


@contextmanager
def host(folder: Path) -> Iterator[Client]:
    """A development host, its functions deployed, and a client of it."""
    command = [sys.executable, "-m", "cloister_host", "dev", "--detach", "--listen", "127.0.0.1:8791"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    try:
        cloister = str(Path(sys.executable).with_name("cloister"))
        subprocess.run([cloister, "key", "create", "ages"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for name, source in FUNCTIONS.items():
            (folder / name).mkdir()
            (folder / name / f"{name}_function.py").write_text(source)
            deploy = [cloister, "function", "deploy", name, "--alias", "prod", "--grant"]
            subprocess.run(deploy, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with Client.from_env(directory=folder) as client:
            yield client
    finally:
        subprocess.run([sys.executable, "-m", "cloister_host", "stop"], cwd=folder, check=True)


@contextmanager
def echo(port: int = 8792) -> Iterator[http.client.HTTPConnection]:
    """A bare echo under the same server."""
    process = subprocess.Popen([sys.executable, "-c", ECHO.format(port=port)])
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(200):
            try:
                connection.connect()
                break
            except OSError:
                time.sleep(0.05)
        yield connection
        connection.close()
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait()


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name, host(Path(name)) as client, echo() as connection:
        age = client.seal(22, key="ages")
        ages = client.seal_many([22] * BATCH, key="ages")

        def bounce(size: int) -> None:
            connection.request("POST", "/", b"x" * size)
            connection.getresponse().read()

        invoke = p50_us(lambda: client.invoke("is-adult@prod", age=age))
        batch = p50_us(lambda: client.invoke_batch("are-adults@prod", age=ages), 7)
        opened = p50_us(lambda: client.open_many(ages), 7)
        small, large = p50_us(lambda: bounce(2000)), p50_us(lambda: bounce(sum(map(len, ages))), 7)
        return [
            Row(what="warm sealed invocation, p50", ours=invoke, peer="HTTP echo", theirs=small, budget=3000),
            Row(what=f"batch of {BATCH:,} through a function", ours=batch, peer="HTTP echo", theirs=large),
            Row(
                what=f"open {BATCH:,} values in the host, with HTTP",
                unit="items/s",
                ours=BATCH / opened * 1e6,
                budget=100_000,
            ),
            Row(
                what=f"function over {BATCH:,} rows, with HTTP",
                unit="rows/s",
                ours=BATCH / batch * 1e6,
            ),
        ]
