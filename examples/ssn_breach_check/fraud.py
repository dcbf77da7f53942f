"""The fraud application: asks BigQuery who is affected, and holds their accounts.

    python fraud.py project.dataset

It sees member ids and booleans. It holds no key, and has no right to open a number.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.cloud import bigquery

__all__ = ["Findings", "find_breached", "hold_accounts"]

_DATASET: Final = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.)?[A-Za-z0-9_]{1,1024}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the query said, as member ids.

    Attributes:
        breached: Their number is on the partner's list.
        clear: It is not.
        unreadable: Their number is not what was sealed for them: damaged, or copied from another row.
        without_ssn: No number is on file.
    """

    breached: tuple[int, ...]
    clear: tuple[int, ...]
    unreadable: tuple[int, ...]
    without_ssn: tuple[int, ...]


def find_breached(warehouse: bigquery.Client, *, dataset: str) -> Findings:
    """Check every member of the table `members`.

    A boolean that is missing is not a "no": where a number is on file and there is no answer, a person
    has to look.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: There is no answer now; nothing was decided.
    """
    # BigQuery binds values, never names; `_checked` lets only a dataset's name through.
    query = f"""
        SELECT
            member_id,
            ssn IS NOT NULL AS on_file,
            `{_checked(dataset)}.ssn_breached`(ssn, member_id) AS breached
        FROM `{dataset}.members`
        ORDER BY member_id
    """  # noqa: S608 - as the line above says
    found: dict[tuple[bool, bool | None], list[int]] = {}
    for row in warehouse.query_and_wait(query):
        found.setdefault((row.on_file, row.breached), []).append(row.member_id)
    return Findings(
        breached=tuple(found.get((True, True), ())),
        clear=tuple(found.get((True, False), ())),
        unreadable=tuple(found.get((True, None), ())),
        without_ssn=tuple(found.get((False, None), ())),
    )


def hold_accounts(warehouse: bigquery.Client, findings: Findings, *, dataset: str) -> int:
    """Hold the open accounts of breached members; how many were held now. Doing it again holds none."""
    from google.cloud import bigquery  # noqa: PLC0415 - takes over a second to import

    ids = bigquery.ArrayQueryParameter("breached", "INT64", list(findings.breached))
    job = warehouse.query(
        f"""
        UPDATE `{_checked(dataset)}.accounts`
        SET status = 'held'
        WHERE status = 'open' AND member_id IN UNNEST(@breached)
        """,  # noqa: S608 - as in find_breached
        job_config=bigquery.QueryJobConfig(query_parameters=[ids]),
    )
    job.result()
    return int(job.num_dml_affected_rows or 0)


def _checked(dataset: str) -> str:
    if not _DATASET.fullmatch(dataset):
        raise ValueError("name the dataset as dataset or project.dataset")
    return dataset


def main(arguments: list[str]) -> int:
    """Check all members and hold accounts."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    from google.cloud import bigquery  # noqa: PLC0415 - as in hold_accounts

    warehouse, dataset = bigquery.Client(), arguments[0]
    findings = find_breached(warehouse, dataset=dataset)
    held = hold_accounts(warehouse, findings, dataset=dataset)
    print(f"{len(findings.breached)} members breached, {held} accounts held now")
    for member_id in findings.unreadable:
        print(f"look at member {member_id}: the number on file is not the one sealed for this member")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
