"""The data owner's side: seal the numbers, each bound to its member, and load the table into BigQuery.

    python load.py data/members.csv clinic.members

Runs as a principal that may seal under `ssn` and nothing else: it cannot open what it sealed.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.cloud import bigquery

HERE = Path(__file__).resolve().parent
# The bundle's modules are top-level modules, in the enclave and here.
sys.path.insert(0, str(HERE / "function"))

from ssn_breached import normal_form  # noqa: E402 - found through the line above

from cloister import Client  # noqa: E402 - sorted after the module above
from cloister_gcp import seal_column  # noqa: E402 - as above

__all__ = ["RowError", "load_members", "read_members"]

SCHEMA = [
    bigquery.SchemaField("member_id", "INT64", mode="REQUIRED"),
    bigquery.SchemaField("plan", "STRING"),
    bigquery.SchemaField("ssn", "STRING", description="sealed under the key `ssn`, bound to member_id"),
]


class RowError(ValueError):
    """A row that cannot be loaded. Messages name line and column, never the value."""


def read_members(path: Path) -> Iterator[dict[str, Any]]:
    """Read members; an empty number is NULL.

    Raises:
        RowError: An id is no whole number, or a number has not nine digits.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            number = normal_form(row["ssn"]) if row["ssn"] else None
            if row["ssn"] and number is None:
                raise RowError(f"{path.name}, line {line}: ssn has not nine digits")
            if not row["member_id"].isdecimal():
                raise RowError(f"{path.name}, line {line}: member_id is no whole number")
            yield {"member_id": int(row["member_id"]), "plan": row["plan"], "ssn": number}


def load_members(path: Path, table: str, *, client: Client, warehouse: bigquery.Client) -> int:
    """Seal and load a file of members; how many there were."""
    sealed = seal_column(read_members(path), "ssn", key="ssn", context=["member_id"], client=client)
    job = warehouse.load_table_from_json(sealed, table, job_config=bigquery.LoadJobConfig(schema=SCHEMA))
    job.result()
    return int(job.output_rows)


def main(arguments: list[str]) -> int:
    """Load a file into a table."""
    if len(arguments) != 2:  # noqa: PLR2004 - file and table
        print(__doc__)
        return 2
    path, table = Path(arguments[0]), arguments[1]
    with Client.from_env() as client, bigquery.Client() as warehouse:
        count = load_members(path, table, client=client, warehouse=warehouse)
    print(f"{count} members loaded into {table}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
