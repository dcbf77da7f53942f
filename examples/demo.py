"""The three workflows, one after the other, on this machine: `make demo`.

Each is a program of its own (examples/*/run.py) with a host of its own; this one says who is about to
see what, runs them, and keeps the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from cloister_host.embedded import embedded_host

HERE = Path(__file__).resolve().parent

WORKFLOWS = (
    (
        "credit_forecast",
        "Credit forecast (AWS)",
        "A Lambda passes sealed credit histories from S3 to the enclave and gets sealed forecasts back.",
    ),
    (
        "ssn_breach_check",
        "Breached SSN check (Google Cloud)",
        "A BigQuery remote function sends sealed SSNs to the enclave; only booleans come back.",
    ),
    (
        "pin_transfer",
        "PIN transfer (AWS to Azure)",
        "A sealed PIN enters the enclave on AWS and arrives on Azure as a token, exactly once.",
    ),
)


def main() -> int:
    """Run the workflows; the exit code is 0 if all of them succeeded."""
    console = Console(highlight=False)
    show_host(console)
    taken: list[tuple[str, bool, float]] = []
    for folder, title, text in WORKFLOWS:
        console.print(Rule(f"[bold]{title}", align="left"))
        console.print(f"{text}\n")
        started = time.monotonic()
        done = subprocess.run([sys.executable, "run.py"], cwd=HERE / folder, env=environment(), check=False)
        taken.append((title, done.returncode == 0, time.monotonic() - started))
        console.print()
    show_summary(console, taken)
    return 0 if all(succeeded for _, succeeded, _ in taken) else 1


def environment() -> dict[str, str]:
    """This environment without settings of another Cloister."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}


def show_host(console: Console) -> None:
    """Attest a host as every client does before it sends anything, and say what that found."""
    console.print(Rule("[bold]The enclave host", align="left"))
    with tempfile.TemporaryDirectory() as directory, embedded_host(Path(directory)) as host:
        result = host.operator.attest()
    config = result.keyset.config
    console.print(
        f"environment  {result.environment} (evidence is verified in full, but proves nothing here)"
    )
    console.print(f"sandbox      accepted by name: {config['sandbox']['level']}")
    console.print(f"checked      {', '.join(result.checks)}")
    console.print(f"not checked  {'; '.join(result.not_checked) or 'nothing'}\n")


def show_summary(console: Console, taken: list[tuple[str, bool, float]]) -> None:
    """One line a workflow."""
    table = Table(title="Summary", title_justify="left", box=None)
    table.add_column("workflow")
    table.add_column("result")
    table.add_column("seconds", justify="right")
    for title, succeeded, seconds in taken:
        table.add_row(title, "[green]done" if succeeded else "[red]failed", f"{seconds:.1f}")
    console.print(table)
    console.print(
        "\nEvery answer came with a receipt, signed by the host and tied to a leaf of its log:"
        "\n`cloister receipt verify`, `cloister audit verify` (docs/audit.md)."
    )


if __name__ == "__main__":
    sys.exit(main())
