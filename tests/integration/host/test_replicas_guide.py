"""docs/replicas.md: the five commands, as they stand there, and three replicas that answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from cloister import Client
from support.postgres import cluster
from support.waiting import until

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "replicas.md").read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=30):
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_five_commands_lead_to_three_replicas(tmp_path: Path) -> None:
    [block] = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 5
    assert block in (ROOT / "README.md").read_text()
    ports = [free_port() for _ in range(3)]
    free = iter(ports)
    commands = [re.sub(r"(127\.0\.0\.1):\d+", lambda m: f"{m[1]}:{next(free)}", line) for line in commands]
    with cluster() as postgresql:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{postgresql.programs}:{os.environ['PATH']}",
            "PGHOST": str(postgresql.folder),
            "PGUSER": "cloister",
        }
        running: list[subprocess.Popen[bytes]] = []
        try:
            for command in commands:
                words = command.removesuffix(" &").split()
                if command.endswith("&"):
                    running.append(subprocess.Popen(words, cwd=tmp_path, env=environment))
                else:
                    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            until(lambda: all(map(ready, urls)))
            for number, url in enumerate(urls):
                with Client.from_env(
                    url=url,
                    tenant="system",
                    policy=str(tmp_path / ".cloister" / "policy.toml"),
                    api_key_file=str(tmp_path / ".cloister" / "operator.key"),
                    identity="key",
                ) as operator:
                    assert len(operator.call("tenant.list", {})["tenants"]) == number + 1
                    operator.call("tenant.create", {"tenant": f"t{number}"})
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(60)
