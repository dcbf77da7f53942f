"""The whole workflow on this machine: BigQuery, a Cloud Run function, a partner, an embedded enclave host.

    python run.py
    python run.py members.csv

The parties have a principal each: the loader may seal numbers, the Cloud Run function may invoke the
confidential function, and nobody may open a number. The partner's API key is a secret of the host.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.cloud import bigquery

HERE = Path(__file__).resolve().parent
# This folder holds scripts, not a package; its neighbour `local_cloud` is a package.
sys.path[:0] = [str(HERE), str(HERE.parent)]

from load import load_members  # noqa: E402 - found through the line above
from main import ssn_breached  # noqa: E402 - as above

from cloister import Client  # noqa: E402 - sorted after the module above
from cloister_host.testing import EmbeddedHost, Tenant, embedded_host  # noqa: E402 - as above
from local_cloud.bigquery import LocalBigQuery  # noqa: E402 - as above
from local_cloud.breach_service import BreachService, load_numbers  # noqa: E402 - as above
from local_cloud.ca import LocalCA  # noqa: E402 - as above
from local_cloud.functions_framework_app import FunctionsFrameworkApp  # noqa: E402 - as above

__all__ = ["BreachCloud", "Summary", "breach_cloud", "run"]

MEMBERS = HERE / "data" / "members.csv"
QUERY = (HERE / "fraud.sql").read_text("utf-8")
TABLE = "clinic.members"
SHOWN_CHARS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What each party saw.

    Attributes:
        members: Rows loaded.
        stored_seen: Both ends of one number, as BigQuery holds it.
        found: The query's answer: ids of members whose number was in a breach.
        partner_requests: What the partner was asked.
    """

    function_digest: str
    members: int
    stored_seen: str
    found: tuple[int, ...]
    partner_requests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreachCloud:
    """The workflow, set up: who takes part, and what the cloud holds."""

    tenant: Tenant
    function_digest: str
    partner: BreachService
    endpoint: FunctionsFrameworkApp
    bigquery: LocalBigQuery
    warehouse: bigquery.Client
    loader: Client

    def load(self, path: Path) -> int:
        """Seal and load members, as the clinic."""
        return load_members(path, TABLE, client=self.loader, warehouse=self.warehouse)

    def query(self, sql: str = QUERY) -> list[tuple[Any, ...]]:
        """Run a query, as an analyst."""
        return [tuple(row.values()) for row in self.warehouse.query_and_wait(sql)]


@contextmanager
def breach_cloud(host: EmbeddedHost, *, ca: LocalCA, repeat_requests: bool = False) -> Iterator[BreachCloud]:
    """Set the workflow up on a host that trusts `ca`: key, secret, function, principals, table, endpoint.

    Args:
        host: Runs the confidential function.
        ca: Issues the partner's certificate.
        repeat_requests: BigQuery sends every successful request twice.
    """
    tenant = host.tenant()
    api_key = secrets.token_urlsafe(24)
    numbers = load_numbers(HERE / "data" / "breached_numbers.txt")
    with (
        tenant.admin as admin,
        BreachService(numbers, ca=ca, api_key=api_key) as partner,
        LocalBigQuery(repeat_requests=repeat_requests) as local,
        local.client() as warehouse,
    ):
        admin.call("key.create", {"key": "ssn", "purpose": "seal"})
        admin.call("secret.put", {"secret": "breach-api-key", "value": api_key})
        digest = tenant.deploy(HERE / "function", {"BREACH_API": partner.url})["digest"]
        tenant.principal("ssn-endpoint", [("invoke", "function/ssn-breached")], kind="faas")
        with (
            tenant.client("loader", [("seal", "key/ssn")]) as loader,
            FunctionsFrameworkApp(
                "ssn_breached", source=HERE / "main.py", environment=tenant.environment("ssn-endpoint")
            ) as endpoint,
        ):
            warehouse.create_dataset("clinic")
            warehouse.query_and_wait(_ddl(endpoint.url))
            yield BreachCloud(
                tenant=tenant,
                function_digest=digest,
                partner=partner,
                endpoint=endpoint,
                bigquery=local,
                warehouse=warehouse,
                loader=loader,
            )


def run(host: EmbeddedHost, report: Callable[[str], None], *, ca: LocalCA, data: Path = MEMBERS) -> Summary:
    """Load the members of a file and find those whose number was in a breach."""
    with breach_cloud(host, ca=ca) as parties:
        count = parties.load(data)
        report(f"loader: {count} members in BigQuery, their numbers sealed one by one")
        found = tuple(member for member, _ in parties.query())
        rows = sum(len(request.body["calls"]) for request in parties.bigquery.requests)
        report(f"BigQuery: {rows} rows to the endpoint in {len(parties.bigquery.requests)} requests")
        asked = tuple(f"{request.method} {request.target}" for request in parties.partner.requests)
        report(f"partner: asked for its list in {len(asked)} requests, and for no number")
        report(f"analyst: {len(found)} members found")
        (stored,) = parties.query(f"SELECT ssn FROM {TABLE} WHERE ssn IS NOT NULL LIMIT 1")  # noqa: S608 - a constant
        return Summary(
            function_digest=parties.function_digest,
            members=count,
            stored_seen=_ends(stored[0]),
            found=found,
            partner_requests=asked,
        )


def _ddl(endpoint: str) -> str:
    return ssn_breached.ddl("clinic.ssn_breached", connection="local-project.us.cloister", endpoint=endpoint)


def _ends(sealed: str) -> str:
    """The beginning is a public header; what is sealed shows at the end."""
    return f"{sealed[:SHOWN_CHARS]}...{sealed[-SHOWN_CHARS:]}"


def main(arguments: list[str]) -> int:
    """Run the workflow and show what was found."""
    if len(arguments) > 1:
        print(__doc__)
        return 2
    data = Path(arguments[0]) if arguments else MEMBERS
    with (
        LocalCA() as ca,
        tempfile.TemporaryDirectory() as directory,
        embedded_host(
            Path(directory), egress_trust_anchors=(ca.pem_path,), egress_allow_private_addresses=True
        ) as host,
    ):
        summary = run(host, print, ca=ca, data=data)
    print(f"\n  BigQuery holds   {summary.stored_seen}")
    print(f"  the partner saw  {', '.join(summary.partner_requests)}")
    print(f"  the query found  {', '.join(map(str, summary.found))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
