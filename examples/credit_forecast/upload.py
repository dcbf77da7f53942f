"""The bank's side: seal histories one by one, bound to their customer, and store them in S3.

    python upload.py data/credit_card_default.csv.gz BUCKET

Runs as a principal that may seal under `credit-histories` and nothing else: it cannot open what it sealed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from histories import read_histories
from history import History

from cloister import Client
from cloister_aws import s3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["object_key", "upload_histories"]

KEY = "credit-histories"


def upload_histories(
    client: Client,
    histories: Iterable[tuple[str, History]],
    *,
    bucket: str,
    s3_client: S3Client | None = None,
) -> int:
    """Seal and store each history; how many there were.

    The data key is drawn once and reused within its limits, so sealing a history needs no call.
    """
    count = 0
    for customer, history in histories:
        sealed = client.seal(asdict(history), key=KEY, context={"customer": customer})
        s3.put_sealed(bucket, object_key(customer), sealed, s3=s3_client)
        count += 1
    return count


def object_key(customer: str) -> str:
    """Where a customer's history is; whoever may list the bucket reads it, so use ids that say nothing."""
    return f"histories/{customer}.jwe"


def main(arguments: list[str]) -> int:
    """Upload a file of histories."""
    if len(arguments) != 2:  # noqa: PLR2004 - file and bucket
        print(__doc__)
        return 2
    path, bucket = Path(arguments[0]), arguments[1]
    with Client.from_env() as client:
        count = upload_histories(client, read_histories(path), bucket=bucket)
    print(f"{count} histories sealed and stored in {bucket}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
