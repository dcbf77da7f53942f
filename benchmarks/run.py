"""Run every benchmark, print the tables, keep the figures as JSON.

python benchmarks/run.py [NAME ...]

`spark` runs only when it is named: it needs the dependency group `spark`, and minutes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from figures import show

TABLES = (
    "envelope",
    "objects",
    "imports",
    "invocation",
    "functions",
    "fairness",
    "audit",
    "keys",
    "attestation",
    "authorise",
    "capacity",
    "replicas",
)
SCRIPTS = ("tokenization",)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    wanted = sys.argv[1:] or [*TABLES, *SCRIPTS]
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    for name in wanted:
        if name in SCRIPTS:
            extra = ["--json", str(RESULTS / f"{name}.json")]
            print(f"\n{name}", flush=True)
            subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py")), *extra], check=True)
            continue
        rows = import_module(name).rows()
        show(name, rows)
        report = {**machine, "figures": [row.to_json() for row in rows]}
        (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
