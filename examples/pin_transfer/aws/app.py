"""The Lambda function: hands a sealed PIN to the enclave, and gets a token. It can open neither."""

from __future__ import annotations

from typing import Any

from cloister_aws import Enclave, confidential


@confidential("pin-transfer@prod")
def handler(event: dict[str, str], context: Any, *, enclave: Enclave) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes it
    """Transfer one PIN; the same `transfer` again is the same transfer, with the same token."""
    account = event["account"]
    reply = enclave(
        pin=event["pin"],
        account=account,
        context={"account": account},
        idempotency_key=event["transfer"],
    )
    return {
        "delivery": reply.delivery_id,
        "token": reply.value["token"],
        "receipt": reply.receipt.id,
    }
