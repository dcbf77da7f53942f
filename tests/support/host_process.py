"""A host in a process of its own, for tests that kill it, move its clock or cut off its database.

What it is built with is what `cloister host serve` builds; only its clock and its evidence are the test's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloister import Client
from cloister.attestation import AppraisalPolicy
from cloister.identity import ApiKey
from cloister.transport import Transport, TransportError
from cloister.transport.stdlib import HttpTransport
from support.waiting import until

__all__ = ["Anywhere", "HostProcess", "client", "policy_of"]

FAST = {"first_seconds": 0.2, "longest_seconds": 1.0, "attempts": 200, "poll_seconds": 0.1}


class HostProcess:
    """One replica. Its port stays the same over restarts.

    Args:
        folder: Of the deployment; shared by its replicas, holds the root key's file.
        name: Of this replica.
        database: URL; the embedded one if empty.
        image: What its evidence measures.
        trust_anchor: PEM, for egress.
        database_timeout_seconds: As in `HostSettings`.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "host",
        *,
        database: str = "",
        image: str = "image-1",
        trust_anchor: Path | None = None,
        database_timeout_seconds: float = 15.0,
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._offset = folder / f"{name}.offset"
        self._offset.write_text("0")
        self._settings = {
            "state": str(folder / "state"),
            "database": database,
            "port": self.port,
            "image": image,
            "offset": str(self._offset),
            "trust_anchor": str(trust_anchor) if trust_anchor else "",
            "doors": [self.url],
            "database_timeout_seconds": database_timeout_seconds,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> None:
        self._spawn("serve")
        if wait:
            self.wait_until_ready()

    def initialize(self) -> str:
        """Make the deployment; gives the operator's key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._spawn("init", stdout=subprocess.PIPE)
        assert self.process is not None
        out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, self.log.read_text()
        return out.decode().strip()

    def wait_until_ready(self) -> None:
        until(lambda: self.is_ready() or not self.runs)
        assert self.runs, self.log.read_text()

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=8):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """As a power cut ends a process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """As an orchestrator ends a process."""
        if self.runs and self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def move_clock(self, seconds: float) -> None:
        """From now on its clock is so far ahead."""
        beside = self._offset.with_suffix(".new")
        beside.write_text(str(seconds))
        beside.replace(self._offset)

    def _spawn(self, what: str, **more: Any) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.host_process", what, json.dumps(self._settings)],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stderr=log,
                **{"stdout": log, **more},
            )


class Anywhere:
    """A transport to several replicas, as a load balancer is one: the next that accepts a connection."""

    def __init__(self, *urls: str) -> None:
        self._transports: list[Transport] = [HttpTransport(url) for url in urls]
        self._next = 0

    def post(self, path: str, body: bytes, *, content_type: str, timeout_seconds: float) -> Any:
        failure = TransportError("no replica")
        for _ in self._transports:
            self._next += 1
            transport = self._transports[self._next % len(self._transports)]
            try:
                return transport.post(path, body, content_type=content_type, timeout_seconds=timeout_seconds)
            except TransportError as error:
                failure = error
        raise failure

    def close(self) -> None:
        for transport in self._transports:
            transport.close()  # type: ignore[attr-defined]


def policy_of(*images: str) -> AppraisalPolicy:
    """Accepts these images."""
    return AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "environment": "simulated",
            "tee": {"simulated": {"reference": [{"name": i, "measurement": i} for i in images]}},
        }
    )


def client(
    transport: Any,
    api_key: str,
    *,
    tenant: str = "system",
    images: tuple[str, ...] = ("image-1",),
    timeout_seconds: float = 60.0,
) -> Client:
    """A client that accepts these images."""
    if isinstance(transport, str):
        transport = HttpTransport(transport)
    return Client(
        tenant=tenant,
        policy=policy_of(*images),
        identity=ApiKey(api_key),
        transport=transport,
        timeout_seconds=timeout_seconds,
    )


def main() -> None:
    from cloister_host import server
    from cloister_host.app import build, initialize
    from cloister_host.attester.settings import AttesterSettings
    from cloister_host.attester.simulated import SimulatedAttester
    from cloister_host.deliveries.schedule import Schedule
    from cloister_host.settings import HostSettings

    what, given = sys.argv[1], json.loads(sys.argv[2])
    offset = Path(given["offset"])

    def clock() -> float:
        return time.time() + float(offset.read_text())

    attester = SimulatedAttester(given["image"], clock=clock)
    settings = HostSettings(
        state=Path(given["state"]),
        database=given["database"],
        attester=AttesterSettings(name="simulated"),
        accepted_sandboxes=frozenset({"process"}),
        egress_trust_anchors=(Path(given["trust_anchor"]),) if given["trust_anchor"] else (),
        egress_allow_private_addresses=True,
        deliveries=Schedule(**FAST),
        doors=tuple(given["doors"]),
        database_timeout_seconds=given["database_timeout_seconds"],
    )
    if what == "init":
        sys.stdout.write(initialize(replace(settings, doors=()), attester=attester, clock=clock))
        return
    with build(settings, attester=attester, clock=clock) as host:
        listening = server.Listening(address="127.0.0.1", port=given["port"])
        server.serve(host.app, listening, stopping=host.stopping)


if __name__ == "__main__":
    main()
