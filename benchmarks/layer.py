"""The Lambda layer: its size, and a cold start from it to the first sealed byte.

Whole processes of a Python that Lambda has, with nothing but the layer on their path, beside the import of
the boto3 that Lambda brings; the programs take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from cloister.jose import generate_key
from cloister_aws.layer import build_layer
from figures import Row

RUNS = 11
MAX_BYTES = 12e6
SEALED = """
from cloister_aws import Enclave, confidential
@confidential("credit-forecast@prod")
def handler(event, context, *, enclave: Enclave): ...
import json, sys
from cloister.envelope import seal_to
sealed = seal_to("x", json.loads(sys.argv[1]), kid="histories.1")
"""
CLIENT = """
from cloister.client import Client
from cloister.protocol.exchange import seal_request
"""


def interpreter() -> tuple[str, Path]:
    """A Python of a version that the layer can be built for: 3.12 or newer, from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for candidate in [Path(sys.executable), *sorted(pyenv.glob("3.1[2-9].*/bin/python"))]:
        program = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", program], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and version != "3.11":
            return version, candidate
    raise SystemExit("the layer's cold start needs Python 3.12 or newer, on PATH or in pyenv")


def rows() -> list[Row]:
    version, python = interpreter()
    key = json.dumps(generate_key("HPKE-10-KE").public().to_jwk())
    with tempfile.TemporaryDirectory() as folder:
        built = build_layer(Path(folder, "layer.zip"), python=version, architecture="x86_64")
        zipfile.ZipFile(built.path).extractall(folder)
        environment = {"PYTHONPATH": str(Path(folder, "python")), "PYTHONDONTWRITEBYTECODE": "1"}
        programs = {"empty": "pass", "sealed": SEALED, "client": SEALED + CLIENT}
        times: dict[str, list[float]] = {name: [] for name in programs}
        for run in range(RUNS + 1):
            for name, program in programs.items():
                started = time.perf_counter()
                subprocess.run([python, "-c", program, key], check=True, env=environment, cwd=folder)
                if run:
                    times[name].append(time.perf_counter() - started)
    took = {name: statistics.median(values) * 1000 for name, values in times.items()}
    return [
        Row(what="layer, zipped", unit="MB", ours=built.size_bytes / 1e6, budget=MAX_BYTES / 1e6),
        Row(
            what="cold start to the first sealed byte, from the layer",
            unit="ms",
            ours=took["sealed"] - took["empty"],
            budget=120,
        ),
        Row(
            what="the same with the client loaded, up to its first request",
            unit="ms",
            ours=took["client"] - took["empty"],
        ),
    ]
