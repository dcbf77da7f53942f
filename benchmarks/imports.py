"""What an import costs in a cold start: whole processes, in turn, medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import layer
from figures import Row

RUNS = 11
READY = (
    "from cloister.client import Client; from cloister.identity import ApiKey; "
    "from cloister.attestation import AppraisalPolicy; from cloister.transport.stdlib import HttpTransport; "
    "p = AppraisalPolicy.from_mapping({'version': 1, 'environment': 'simulated', "
    "'tee': {'simulated': {'reference': [{'name': 'x', 'measurement': 'x'}]}}}); "
    "Client(tenant='t', policy=p, identity=ApiKey('clk_a_b'), transport=HttpTransport('http://localhost'))"
)


def milliseconds(statements: dict[str, str]) -> dict[str, float]:
    """Time of each program beyond an empty one; the programs take turns, so that drift hits all.

    As in a function's package, the bytecode is there: the first run, which is not timed, writes it.
    """
    programs = {"": "pass", **statements}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for program in programs.values():
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(RUNS):
        for name, program in programs.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            times[name].append(time.perf_counter() - started)
    empty = statistics.median(times[""])
    return {name: (statistics.median(times[name]) - empty) * 1000 for name in statements}


def rows() -> list[Row]:
    took = milliseconds(
        {
            "cloister": "import cloister",
            "client": READY,
            "tink": "import tink",
            "sdk": "import aws_encryption_sdk",
            "requests": "import requests",
            "urllib3": "import urllib3",
            "http.client": "import http.client, ssl",
        }
    )
    return [
        Row(what="import", unit="ms", ours=took["cloister"], peer="tink", theirs=took["tink"], budget=35),
        Row(what="client ready to send", unit="ms", ours=took["client"], budget=90),
        Row(
            what="client ready to send",
            unit="ms",
            ours=took["client"],
            peer="import aws_encryption_sdk",
            theirs=took["sdk"],
        ),
        *(
            Row(what=f"import {name}, for the choice of transport", unit="ms", ours=took[name])
            for name in ("requests", "urllib3", "http.client")
        ),
        *layer.rows(),
    ]
