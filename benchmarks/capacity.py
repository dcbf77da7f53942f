"""What one operation costs in CPU, of the host and of its database: the figures that `scaling` starts from.

CPU seconds of processes, not time that passed. The host runs here with its sandbox processes below it, the
client in a process of its own, PostgreSQL in a private cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cloister_host.embedded import Tenant, embedded_host
from figures import Row
from invocation import FUNCTIONS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from support.postgres import cluster

CALLS: Final = 300
BATCHES: Final = 6
ROWS: Final = 10_000
TICK: Final = os.sysconf("SC_CLK_TCK")
SSN: Final = {"policy": "ssn", "plan": "ff1", "type": "ssn"}
GRANTS: Final = (
    ("seal", "key/ages"),
    ("decrypt", "key/ages"),
    ("invoke", "function/*"),
    ("tokenize", "policy/ssn"),
)
CLIENT: Final = textwrap.dedent(
    """
    import sys, time
    from cloister import Client

    calls, batches, rows = map(int, sys.argv[1:])
    with Client.from_env() as client:
        age = client.seal(22, key="ages")
        ages = client.seal_many([22] * rows, key="ages")
        ssns = [f"{200 + n % 500:03}-{n % 89 + 10:02}-{n % 8999 + 1000:04}" for n in range(rows)]
        work = {
            "invoke": (calls, lambda: client.invoke("is-adult@prod", age=age)),
            "batch": (batches, lambda: client.invoke_batch("are-adults@prod", age=ages)),
            "open": (batches, lambda: client.open_many(ages)),
            "tokenize": (batches, lambda: client.tokenize("ssn", ssns)),
        }
        for name, (times, do) in work.items():
            do(), do()
            time.sleep(3)  # what the host does afterwards for the work before
            print("start", name, flush=True)
            sys.stdin.readline()
            for _ in range(times):
                do()
            time.sleep(3)  # and for this
            print("stop", name, flush=True)
            sys.stdin.readline()
    """
)


def cpu_seconds(root: int) -> float:
    """CPU that a process, those below it, and those of them that have ended have used."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
        used[int(path.parent.name)] = sum(map(int, fields[11:15])) / TICK

    def total(process: int) -> float:
        return used.get(process, 0.0) + sum(map(total, parents.get(process, ())))

    return total(root)


@contextmanager
def world(database: str = "") -> Iterator[Tenant]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with embedded_host(folder / "host", database=database) as host:
            tenant = host.tenant()
            tenant.admin.call("key.create", {"key": "ages", "purpose": "seal"})
            tenant.admin.call("policy.create", SSN)
            for function, source in FUNCTIONS.items():
                (folder / function).mkdir()
                (folder / function / f"{function}_function.py").write_text(source)
                tenant.deploy(folder / function)
            tenant.principal("app", GRANTS)
            yield tenant
            tenant.admin.close()


def measured(tenant: Tenant, database: int | None) -> dict[str, tuple[float, float]]:
    """CPU microseconds of one operation, at the host and at the database, by operation."""
    command = [sys.executable, "-c", CLIENT, str(CALLS), str(BATCHES), str(ROWS)]
    environment = {**os.environ, **tenant.environment("app")}
    client = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    found: dict[str, tuple[float, float]] = {}
    started = (0.0, 0.0)
    for line in client.stdout:
        word, name = line.split()
        # The client is a process below this one too.
        now = (
            cpu_seconds(os.getpid()) - cpu_seconds(client.pid),
            0.0 if database is None else cpu_seconds(database),
        )
        if word == "start":
            started = now
        else:
            times = CALLS if name == "invoke" else BATCHES
            host, store = ((after - before) / times * 1e6 for before, after in zip(started, now, strict=True))
            found[name] = (host, store)
        client.stdin.write("\n")
        client.stdin.flush()
    if client.wait() != 0:
        raise RuntimeError("the client failed")
    return found


def rows() -> list[Row]:
    figures = []
    with cluster() as postgres:
        process = int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
        for kind, url, database in (("SQLite", "", None), ("PostgreSQL", postgres.database(), process)):
            with world(url) as tenant:
                found = measured(tenant, database)
            for name, (host, store) in found.items():
                per = 1 if name == "invoke" else ROWS
                what = {"invoke": "one invocation", "batch": "a row of a batch function"}.get(
                    name, f"{name} a value"
                )
                figures.append(Row(what=f"{what}, host over {kind}", ours=host / per, unit="us CPU"))
                if database is not None:
                    figures.append(Row(what=f"{what}, PostgreSQL itself", ours=store / per, unit="us CPU"))
    return figures


if __name__ == "__main__":
    print(json.dumps([row.to_json() for row in rows()], indent=2))
