"""The whole workflow on this machine: BigQuery, a Cloud Run function, a partner, an embedded enclave host.

    python run.py                       # the members of data/members.csv
    python run.py members.csv

The parties have a principal each: the loader may seal numbers, the Cloud Run function may invoke the
confidential function, and nobody may open a number. The partner's API key is a secret of the host.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.cloud.bigquery import Client as BigQueryClient

HERE = Path(__file__).resolve().parent
# This folder and its neighbour `local_cloud` are packages of `examples`.
sys.path.insert(0, str(HERE.parent))

from cloister import Client  # noqa: E402 - found through the line above
from cloister_host.embedded import EmbeddedHost, Tenant, embedded_host  # noqa: E402 - as above
from local_cloud.bigquery import LocalBigQuery  # noqa: E402 - as above
from local_cloud.breach_service import BreachService, load_numbers  # noqa: E402 - as above
from local_cloud.ca import LocalCA  # noqa: E402 - as above
from local_cloud.functions_framework_app import FunctionsFrameworkApp  # noqa: E402 - as above
from ssn_breach_check.fraud import Findings, find_breached, hold_accounts  # noqa: E402 - as above
from ssn_breach_check.load import load_members  # noqa: E402 - as above
from ssn_breach_check.main import ssn_breached  # noqa: E402 - as above

__all__ = [
    "ANSWERS",
    "DATASET",
    "MEMBERS",
    "PARTNERS_LIST",
    "TABLE",
    "BreachCloud",
    "Summary",
    "breach_cloud",
    "run",
]

MEMBERS = HERE / "data" / "members.csv"
PARTNERS_LIST = HERE / "data" / "breached_numbers.txt"
DATASET = "clinic"
TABLE = f"{DATASET}.members"
ANSWERS = f"SELECT member_id, {DATASET}.ssn_breached(ssn, member_id) FROM {TABLE} ORDER BY member_id"  # noqa: S608 - constants
SHOWN_CHARS = 24
PAGE_SIZE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What each party saw.

    Attributes:
        members: Rows loaded.
        stored_seen: Both ends of one number, as BigQuery holds it.
        requests: Sent by BigQuery to the remote function.
        partner_requests: What the partner was asked.
        findings: The query's answer, as the fraud application read it.
        held: Accounts it put on hold.
    """

    function_digest: str
    members: int
    stored_seen: str
    requests: int
    partner_requests: tuple[str, ...]
    findings: Findings
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreachCloud:
    """The workflow, set up: who takes part, and what the cloud holds."""

    tenant: Tenant
    function_digest: str
    partner: BreachService
    endpoint: FunctionsFrameworkApp
    bigquery: LocalBigQuery
    warehouse: BigQueryClient
    loader: Client

    def load(self, path: Path) -> int:
        """Seal and load a file of members, and open an account for each; how many there were."""
        count = load_members(path, TABLE, client=self.loader, warehouse=self.warehouse)
        self.query(
            f"CREATE OR REPLACE TABLE {DATASET}.accounts AS"  # noqa: S608 - a constant
            f" SELECT member_id, 'open' AS status FROM {TABLE}"
        )
        return count

    def query(self, sql: str = ANSWERS) -> list[tuple[Any, ...]]:
        """Run a query, as an analyst; by default every member's answer."""
        return [tuple(row.values()) for row in self.warehouse.query_and_wait(sql)]

    @property
    def partner_requests(self) -> tuple[str, ...]:
        """What the partner was asked."""
        return tuple(f"{request.method} {request.target}" for request in self.partner.requests)


@contextmanager
def breach_cloud(
    host: EmbeddedHost,
    ca: LocalCA,
    *,
    numbers: Sequence[str] | None = None,
    repeat_requests: bool = False,
) -> Iterator[BreachCloud]:
    """Set the workflow up on a host: key, secret, function, principals, partner, warehouse, endpoint.

    Args:
        host: Runs the confidential function; its egress trusts `ca` and may reach this machine.
        ca: Issues the partner's certificate.
        numbers: The partner's list; by default the one in `data`.
        repeat_requests: BigQuery sends every successful request twice, as it may.
    """
    tenant = host.tenant()
    api_key = secrets.token_urlsafe(24)
    listed = load_numbers(PARTNERS_LIST) if numbers is None else numbers
    with tenant.admin as admin, BreachService(listed, ca=ca, api_key=api_key, page_size=PAGE_SIZE) as partner:
        admin.call("key.create", {"key": "ssn", "purpose": "seal"})
        admin.call("secret.put", {"secret": "breach-api-key", "value": api_key})
        digest = tenant.deploy(HERE / "function", {"BREACH_API": partner.url})["digest"]
        tenant.principal("ssn-endpoint", [("invoke", "function/ssn-breached")], kind="faas")
        with (
            tenant.client("loader", [("seal", "key/ssn")]) as loader,
            LocalBigQuery(repeat_requests=repeat_requests) as local,
            local.client() as warehouse,
            FunctionsFrameworkApp(
                "ssn_breached", source=HERE / "main.py", environment=tenant.environment("ssn-endpoint")
            ) as endpoint,
        ):
            warehouse.create_dataset(DATASET)
            warehouse.query_and_wait(
                ssn_breached.ddl(f"{DATASET}.ssn_breached", connection="us.cloister", endpoint=endpoint.url)
            )
            yield BreachCloud(
                tenant=tenant,
                function_digest=digest,
                partner=partner,
                endpoint=endpoint,
                bigquery=local,
                warehouse=warehouse,
                loader=loader,
            )


def run(host: EmbeddedHost, ca: LocalCA, report: Callable[[str], None], *, data: Path = MEMBERS) -> Summary:
    """Check the members of a file, and hold the accounts of those whose number was breached.

    Raises:
        RowError: The file cannot be loaded.
        google.api_core.exceptions.GoogleAPICallError: The query failed; the message is what a user sees.
    """
    with breach_cloud(host, ca) as parties:
        count = parties.load(data)
        report(f"data owner: {count} members loaded into BigQuery, their numbers sealed")
        findings = find_breached(parties.warehouse, dataset=DATASET)
        requests = len(parties.bigquery.requests)
        report(f"BigQuery: sealed rows to the endpoint and booleans back, in {requests} request(s)")
        asked = parties.partner_requests
        report(f"partner: asked for its list in {len(asked)} requests, and for no number")
        held = hold_accounts(parties.warehouse, findings, dataset=DATASET)
        report(f"fraud application: {len(findings.breached)} members found, {held} accounts held")
        stored = parties.query(
            f"SELECT ssn FROM {TABLE} WHERE ssn IS NOT NULL LIMIT 1"  # noqa: S608 - a constant
        )
        return Summary(
            function_digest=parties.function_digest,
            members=count,
            stored_seen=_ends(stored[0][0]),
            requests=requests,
            partner_requests=asked,
            findings=findings,
            held=held,
        )


def _ends(sealed: str) -> str:
    """The beginning is a public header; what is sealed shows at the end."""
    return f"{sealed[:SHOWN_CHARS]}...{sealed[-SHOWN_CHARS:]}"


def main(arguments: list[str]) -> int:
    """Run the workflow and show what each party saw."""
    if len(arguments) > 1:
        print(__doc__)
        return 2
    data = Path(arguments[0]) if arguments else MEMBERS
    with (
        LocalCA() as ca,
        tempfile.TemporaryDirectory() as directory,
        embedded_host(
            Path(directory), egress_trust_anchors=[ca.pem_path], egress_allow_private_addresses=True
        ) as host,
    ):
        summary = run(host, ca, print, data=data)
    print(f"\n  BigQuery holds   {summary.stored_seen}")
    print(f"  the partner saw  {', '.join(summary.partner_requests)}")
    print(f"  the query found  {', '.join(map(str, summary.findings.breached))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
