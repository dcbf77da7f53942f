"""The Lambda function: a sealed history from S3 in, a sealed forecast out. It can open neither."""

from __future__ import annotations

from typing import Any

from cloister_aws import Enclave, confidential, s3


@confidential("credit-forecast@prod")
def handler(event: dict[str, str], context: Any, *, enclave: Enclave) -> dict[str, str]:  # noqa: ARG001 - Lambda passes it
    """Ask the enclave for one customer's forecast."""
    history = s3.get_sealed(event["bucket"], event["key"])
    reply = enclave(history=history, context={"customer": event["customer"]})
    return {"forecast": reply.value, "receipt": reply.receipt.id}
