"""The whole workflow on this machine: S3 by moto, the real Lambda runtime, an embedded enclave host.

    python run.py                                   # twenty customers of the data set
    python run.py data/credit_card_default.csv.gz 100

The three parties have a principal each: the uploader may seal histories, the Lambda function may invoke
the function, the officer may open forecasts. None may do what another does.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
# This folder holds scripts, not a package; its neighbour `local_cloud` is a package.
sys.path[:0] = [str(HERE), str(HERE.parent)]

from histories import DATA, read_histories  # noqa: E402 - found through the line above
from history import History  # noqa: E402 - as above
from officer import describe, open_forecast  # noqa: E402 - as above
from upload import object_key, upload_histories  # noqa: E402 - as above

from cloister import Client  # noqa: E402 - sorted after the modules above
from cloister_host.embedded import EmbeddedHost, Tenant, embedded_host  # noqa: E402 - as above
from local_cloud.lambda_runtime import InvocationResult, LambdaRuntime  # noqa: E402 - as above
from local_cloud.s3 import LocalS3  # noqa: E402 - as above

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["CreditCloud", "CustomerForecast", "Summary", "credit_cloud", "run"]

BUCKET = "credit-histories"
SHOWN_CHARS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerForecast:
    """One customer's way through the workflow.

    Attributes:
        history_seen: Both ends of the history that the Lambda function read.
        forecast_seen: Both ends of the forecast that it returned.
        forecast: The forecast as the officer opened it.
        receipt: Id of the receipt that proves which code made it.
    """

    customer: str
    history_seen: str
    forecast_seen: str
    forecast: Any = field(repr=False)
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What each party saw."""

    function_digest: str
    customers: tuple[CustomerForecast, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditCloud:
    """The workflow, set up: who takes part, and what the cloud holds."""

    tenant: Tenant
    function_digest: str
    s3: S3Client
    function: LambdaRuntime
    uploader: Client
    officer: Client

    def upload(self, histories: Iterable[tuple[str, History]]) -> int:
        """Seal and store histories, as the bank."""
        return upload_histories(self.uploader, histories, bucket=BUCKET, s3_client=self.s3)

    def stored(self, customer: str) -> bytes:
        """A customer's object in S3."""
        return self.s3.get_object(Bucket=BUCKET, Key=object_key(customer))["Body"].read()

    def invoke(self, customer: str) -> InvocationResult:
        """Invoke the Lambda function for a customer."""
        event = {"bucket": BUCKET, "key": object_key(customer), "customer": customer}
        return self.function.invoke(event)


@contextmanager
def credit_cloud(host: EmbeddedHost) -> Iterator[CreditCloud]:
    """Set the workflow up on a host: keys, function, principals, bucket, Lambda function."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto's access log
    tenant = host.tenant()
    with tenant.admin as admin:
        for key in ("credit-histories", "forecasts"):
            admin.call("key.create", {"key": key, "purpose": "seal"})
        digest = tenant.deploy(HERE / "function")["digest"]
        tenant.principal("forecast-lambda", [("invoke", "function/credit-forecast")], kind="faas")
        with (
            tenant.client("uploader", [("seal", "key/credit-histories")]) as uploader,
            tenant.client("credit-officer", [("decrypt", "key/forecasts")], kind="person") as officer,
            LocalS3() as cloud,
            LambdaRuntime(
                "app.handler",
                directory=HERE / "lambda",
                environment={**cloud.environment, **tenant.environment("forecast-lambda")},
                name="credit-forecast",
            ) as function,
        ):
            s3 = cloud.client()
            s3.create_bucket(Bucket=BUCKET)
            yield CreditCloud(
                tenant=tenant,
                function_digest=digest,
                s3=s3,
                function=function,
                uploader=uploader,
                officer=officer,
            )


def run(host: EmbeddedHost, report: Callable[[str], None], *, count: int = 20, data: Path = DATA) -> Summary:
    """Forecast for the first `count` customers of a file.

    Raises:
        RuntimeError: The Lambda function failed; the message is what its caller was told.
    """
    with credit_cloud(host) as parties:
        histories = dict(islice(read_histories(data), count))
        report(f"uploader: {parties.upload(histories.items())} credit histories sealed and stored in S3")
        customers = []
        for customer in histories:
            result = parties.invoke(customer)
            if result.error is not None:
                raise RuntimeError(f"customer {customer}: {result.error.message}")
            sealed = result.payload["forecast"]
            customers.append(
                CustomerForecast(
                    customer=customer,
                    history_seen=_ends(parties.stored(customer).decode("ascii")),
                    forecast_seen=_ends(sealed),
                    forecast=open_forecast(parties.officer, sealed, customer=customer),
                    receipt=result.payload["receipt"],
                )
            )
        report(f"Lambda: {len(customers)} sealed histories in, {len(customers)} sealed forecasts out")
        report(f"credit officer: {len(customers)} forecasts opened outside the cloud")
        return Summary(function_digest=parties.function_digest, customers=tuple(customers))


def _ends(sealed: str) -> str:
    """The beginning is a public header; what is sealed shows at the end."""
    return f"{sealed[:SHOWN_CHARS]}...{sealed[-SHOWN_CHARS:]}"


def main(arguments: list[str]) -> int:
    """Run the workflow and show the first three customers."""
    if len(arguments) not in {0, 2}:
        print(__doc__)
        return 2
    data, count = (Path(arguments[0]), int(arguments[1])) if arguments else (DATA, 20)
    with tempfile.TemporaryDirectory() as directory, embedded_host(Path(directory)) as host:
        summary = run(host, print, count=count, data=data)
    for one in summary.customers[:3]:
        print(f"\ncustomer {one.customer}")
        print(f"  Lambda read      {one.history_seen}")
        print(f"  Lambda returned  {one.forecast_seen}")
        print(f"  receipt          {one.receipt}")
        print(f"  officer read     {describe(one.forecast)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
